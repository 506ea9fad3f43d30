# Classifier checkpoint -> class activation maps (HDF5 a shard), which may be refined -> threshold curve and scores, and
# the scores of their boxes where they are asked for.


rule maps:
    input:
        config=f"{R}/config/seeds/{{seed}}/maps.json",
        classifier=lambda wildcards: classifier_path(upstream(wildcards, "seed", "classifier")),
        health=lambda wildcards: ancient(health_path(upstream(wildcards, "seed", "classifier"))),
        manifest=manifest("train"),
        table=table("train"),
    output:
        f"{R}/seeds/{{seed}}/maps/{{shard}}.h5",
    log:
        f"{R}/logs/seeds/{{seed}}/maps.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/seeds/{{seed}}/maps.{{shard}}.tsv"
    wildcard_constraints:
        seed=stages_of("maps"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000 * CONFIGURATION.execution["images_at_once"]),
        runtime=runtime(240),
    params:
        execution=execution("maps"),
        cache=f"{R}/.state/seeds/{{seed}}/{{shard}}.h5",
    message:
        "seeds {wildcards.seed}, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli maps --config {input.config:q} --classifier {input.classifier:q}"
        " --health {input.health:q} --manifest {input.manifest:q} --table {input.table:q} --maps {output:q}"
        " --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule maps_from_maps:
    input:
        config=f"{R}/config/seeds/{{seed}}/maps_from_maps.json",
        manifest=manifest("train"),
        start=lambda wildcards: f"{R}/seeds/{upstream(wildcards, 'seed', 'seed')}/maps/{wildcards.shard}.h5",
    output:
        f"{R}/seeds/{{seed}}/maps/{{shard}}.h5",
    log:
        f"{R}/logs/seeds/{{seed}}/maps_from_maps.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/seeds/{{seed}}/maps_from_maps.{{shard}}.tsv"
    wildcard_constraints:
        seed=stages_of("maps_from_maps"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        execution=execution("maps_from_maps"),
        cache=f"{R}/.state/seeds/{{seed}}/{{shard}}.h5",
    message:
        "seeds {wildcards.seed} from other maps, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli maps_from_maps --config {input.config:q} --manifest {input.manifest:q}"
        " --start {input.start:q} --maps {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule maps_from_files:
    input:
        config=f"{R}/config/seeds/{{seed}}/maps_from_files.json",
        manifest=manifest("train"),
    output:
        f"{R}/seeds/{{seed}}/maps/{{shard}}.h5",
    log:
        f"{R}/logs/seeds/{{seed}}/maps_from_files.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/seeds/{{seed}}/maps_from_files.{{shard}}.tsv"
    wildcard_constraints:
        seed=stages_of("maps_from_files"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        execution=execution("maps_from_files"),
        cache=f"{R}/.state/seeds/{{seed}}/{{shard}}.h5",
        folder=lambda wildcards: folder_state(settings(wildcards.seed, "maps_from_files")["folder"]),
    message:
        "seeds {wildcards.seed} from files, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli maps_from_files --config {input.config:q} --manifest {input.manifest:q}"
        " --maps {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule seeds_scores:
    input:
        config=f"{R}/config/seeds/{{seed}}/scores.json",
        manifests=manifests("train"),
        maps=over_shards("train", f"{R}/seeds/{{seed}}/maps/{{shard}}.h5"),
    output:
        curve=f"{R}/seeds/{{seed}}/curve.csv",
        evaluation=report(
            f"{R}/seeds/{{seed}}/evaluation.csv",
            caption="../report/evaluation.rst",
            category="Seeds",
            labels={"stage": "{seed}"},
        ),
        threshold=f"{R}/seeds/{{seed}}/threshold.json",
    log:
        f"{R}/logs/seeds/{{seed}}/scores.log",
    benchmark:
        f"{R}/benchmarks/seeds/{{seed}}/scores.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        manifests=one_pattern("manifests"),
        maps=one_pattern("maps"),
        execution=execution("seeds_scores"),
    message:
        "scoring seeds {wildcards.seed} over all thresholds"
    shell:
        "python -m wsss_core.cli scores --config {input.config:q} --manifests {params.manifests:q}"
        " --maps {params.maps:q} --curve {output.curve:q} --evaluation {output.evaluation:q}"
        " --threshold {output.threshold:q} {params.execution} > {log:q} 2>&1"


rule localisation:
    input:
        config=f"{R}/config/seeds/{{seed}}/localisation.json",
        manifests=manifests("train"),
        maps=over_shards("train", f"{R}/seeds/{{seed}}/maps/{{shard}}.h5"),
        predicted=predicted_by("seed"),
    output:
        report(
            f"{R}/seeds/{{seed}}/localisation.csv",
            caption="../report/evaluation.rst",
            category="Seeds",
            labels={"stage": "{seed}"},
        ),
    log:
        f"{R}/logs/seeds/{{seed}}/localisation.log",
    benchmark:
        f"{R}/benchmarks/seeds/{{seed}}/localisation.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        manifests=one_pattern("manifests"),
        maps=one_pattern("maps"),
        execution=execution("localisation"),
    message:
        "scoring the localisation of seeds {wildcards.seed}"
    shell:
        "python -m wsss_core.cli localisation --config {input.config:q} --manifests {params.manifests:q}"
        " --maps {params.maps:q} --predicted {input.predicted:q} --localisation {output:q} {params.execution} > {log:q} 2>&1"
