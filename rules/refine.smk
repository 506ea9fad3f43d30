# Class activation maps -> label masks: dense CRF, IRN (labels, training, random walk), filling of ignored pixels.

CRF = one_of(CONFIGURATION.section("refinements", "crf"))
IRN = one_of(CONFIGURATION.section("refinements", "irn"))
WALK = one_of(CONFIGURATION.section("refinements", "irn") + CONFIGURATION.section("refinements", "threshold"))
FILL = one_of(CONFIGURATION.section("refinements", "fill"))


rule crf_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        maps=seed_maps_of,
        threshold=chosen_threshold(
            lambda wildcards: f"{R}/seeds/{upstream(wildcards, 'refinement', 'seed')}/threshold.json"
        ),
    output:
        directory(f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/masks.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/masks.{{shard}}.tsv"
    wildcard_constraints:
        refinement=CRF,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    message:
        "dense CRF {wildcards.refinement}, shard {wildcards.shard}"
    shell:
        "python -m wsss_core.cli crf-masks --config {input.config:q} --manifest {input.manifest:q} --maps {input.maps:q}"
        " --threshold {input.threshold:q} --masks {output:q} --threads {threads} > {log:q} 2>&1"


rule irn_labels:
    input:
        config=f"{R}/config/refinements/{{refinement}}/labels.json",
        manifest=manifest("train"),
        maps=seed_maps_of,
    output:
        directory(f"{R}/refinements/{{refinement}}/labels/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/labels.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/labels.{{shard}}.tsv"
    wildcard_constraints:
        refinement=IRN,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    message:
        "confident labels for {wildcards.refinement}, shard {wildcards.shard}"
    shell:
        "python -m wsss_core.cli irn-labels --config {input.config:q} --manifest {input.manifest:q} --maps {input.maps:q}"
        " --labels {output:q} --threads {threads} > {log:q} 2>&1"


rule train_irn:
    input:
        config=f"{R}/config/refinements/{{refinement}}/network.json",
        table=table("train"),
        labels=over_shards("train", f"{R}/refinements/{{refinement}}/labels/{{shard}}"),
        classifier=classifier_of("refinement"),
        weights=weight_files("refinements", "refinement", "network"),
    output:
        model=f"{R}/refinements/{{refinement}}/network.pt",
        history=f"{R}/refinements/{{refinement}}/history.csv",
    log:
        f"{R}/logs/refinements/{{refinement}}/network.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/network.tsv"
    wildcard_constraints:
        refinement=IRN,
    conda:
        "../envs/wsss.yaml"
    threads: TRAIN_THREADS
    resources:
        mem_mb=memory(8000),
        runtime=runtime(720),
    params:
        execution=execution(training=True),
        state=f"{R}/.state/refinements/{{refinement}}.pt",
    message:
        "training the boundary network of {wildcards.refinement}"
    shell:
        "python -m wsss_core.cli irn-train --config {input.config:q} --table {input.table:q} --labels {input.labels:q}"
        " --classifier {input.classifier:q} --model {output.model:q} --history {output.history:q}"
        " --state {params.state:q} {params.execution} > {log:q} 2>&1"


rule irn_walk:
    input:
        config=f"{R}/config/refinements/{{refinement}}/walk.json",
        manifest=manifest("train"),
        maps=seed_maps_of,
        model=f"{R}/refinements/{{refinement}}/network.pt",
    output:
        f"{R}/refinements/{{refinement}}/scores/{{shard}}.h5",
    log:
        f"{R}/logs/refinements/{{refinement}}/walk.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/walk.{{shard}}.tsv"
    wildcard_constraints:
        refinement=IRN,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(60),
    params:
        execution=execution(),
        cache=f"{R}/.state/refinements/{{refinement}}/{{shard}}.h5",
    message:
        "random walk {wildcards.refinement}, shard {wildcards.shard}"
    shell:
        "python -m wsss_core.cli irn-walk --config {input.config:q} --manifest {input.manifest:q} --maps {input.maps:q}"
        " --model {input.model:q} --scores {output:q} --cache {params.cache:q}"
        " {params.execution} > {log:q} 2>&1"


rule score_walk:
    input:
        config=f"{R}/config/refinements/{{refinement}}/scores.json",
        manifests=manifests("train"),
        maps=over_shards("train", f"{R}/refinements/{{refinement}}/scores/{{shard}}.h5"),
    output:
        curve=f"{R}/refinements/{{refinement}}/curve.csv",
        evaluation=f"{R}/refinements/{{refinement}}/walk.csv",
        threshold=f"{R}/refinements/{{refinement}}/threshold.json",
    log:
        f"{R}/logs/refinements/{{refinement}}/scores.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/scores.tsv"
    wildcard_constraints:
        refinement=IRN,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    message:
        "scoring the walk of {wildcards.refinement} over all thresholds"
    shell:
        "python -m wsss_core.cli score-maps --config {input.config:q} --manifests {input.manifests:q} --maps {input.maps:q}"
        " --curve {output.curve:q} --evaluation {output.evaluation:q} --threshold {output.threshold:q}"
        " --threads {threads} > {log:q} 2>&1"


rule walk_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        scores=lambda wildcards: f"{R}/refinements/{walk_of(wildcards)}/scores/{wildcards.shard}.h5",
        threshold=chosen_threshold(lambda wildcards: f"{R}/refinements/{walk_of(wildcards)}/threshold.json"),
    output:
        directory(f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/masks.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/masks.{{shard}}.tsv"
    wildcard_constraints:
        refinement=WALK,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    message:
        "pseudo-masks {wildcards.refinement}, shard {wildcards.shard}"
    shell:
        "python -m wsss_core.cli walk-masks --config {input.config:q} --manifest {input.manifest:q} --scores {input.scores:q}"
        " --threshold {input.threshold:q} --masks {output:q} --threads {threads} > {log:q} 2>&1"


rule fill_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        masks=lambda wildcards: f"{R}/refinements/{upstream(wildcards, 'refinement', 'masks')}/masks/{wildcards.shard}",
        model=lambda wildcards: f"{R}/segmentations/{upstream(wildcards, 'refinement', 'segmentation')}/model.pt",
    output:
        directory(f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/masks.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/masks.{{shard}}.tsv"
    wildcard_constraints:
        refinement=FILL,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(60),
    params:
        execution=execution(),
    message:
        "filling ignored pixels for {wildcards.refinement}, shard {wildcards.shard}"
    shell:
        "python -m wsss_core.cli fill-masks --config {input.config:q} --manifest {input.manifest:q} --masks {input.masks:q}"
        " --model {input.model:q} --filled {output:q} {params.execution} > {log:q} 2>&1"


rule score_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/evaluation.json",
        manifests=manifests("train"),
        masks=over_shards("train", f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    output:
        report(
            f"{R}/refinements/{{refinement}}/evaluation.csv",
            caption="../report/evaluation.rst",
            category="Pseudo-masks",
            labels={"stage": "{refinement}"},
        ),
    log:
        f"{R}/logs/refinements/{{refinement}}/evaluation.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/evaluation.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    message:
        "scoring the pseudo-masks of {wildcards.refinement}"
    shell:
        "python -m wsss_core.cli score-masks --config {input.config:q} --manifests {input.manifests:q} --masks {input.masks:q}"
        " --evaluation {output:q} --threads {threads} > {log:q} 2>&1"
