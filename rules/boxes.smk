# Boxes -> detector and how well it finds objects -> attribution of its detections to pixels (HDF5 a shard).


rule detectors_train:
    input:
        config=f"{R}/config/detectors/{{detector}}/train.json",
        table=table("train"),
        weights=weight_files("detector"),
    output:
        model=f"{R}/detectors/{{detector}}/model.pt",
        history=f"{R}/detectors/{{detector}}/history.csv",
    log:
        f"{R}/logs/detectors/{{detector}}/train.log",
    benchmark:
        f"{R}/benchmarks/detectors/{{detector}}/train.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: TRAIN_THREADS
    resources:
        mem_mb=memory(8000),
        runtime=runtime(1440),
    params:
        execution=execution("detectors_train"),
        state=f"{R}/.state/detectors/{{detector}}.pt",
    message:
        "training detector {wildcards.detector}; log: {log}"
    shell:
        "python -m wsss_core.cli train --config {input.config:q} --table {input.table:q}"
        " --model {output.model:q} --history {output.history:q} --state {params.state:q} {params.execution} > {log:q} 2>&1"


rule box_scores:
    input:
        config=f"{R}/config/detectors/{{detector}}/box_scores.json",
        manifests=manifests("val"),
        model=f"{R}/detectors/{{detector}}/model.pt",
    output:
        f"{R}/detectors/{{detector}}/box_scores.csv",
    log:
        f"{R}/logs/detectors/{{detector}}/box_scores.log",
    benchmark:
        f"{R}/benchmarks/detectors/{{detector}}/box_scores.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        manifests=one_pattern("manifests"),
        execution=execution("box_scores"),
    message:
        "scoring the boxes of detector {wildcards.detector}; log: {log}"
    shell:
        "python -m wsss_core.cli box_scores --config {input.config:q} --manifests {params.manifests:q}"
        " --model {input.model:q} --scores {output:q} {params.execution} > {log:q} 2>&1"


rule attributions:
    input:
        config=f"{R}/config/attributions/{{attribution}}/attributions.json",
        manifest=manifest("train"),
        model=lambda wildcards: f"{R}/detectors/{upstream(wildcards, 'attribution', 'detector')}/model.pt",
    output:
        f"{R}/attributions/{{attribution}}/attributions/{{shard}}.h5",
    log:
        f"{R}/logs/attributions/{{attribution}}/attributions.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/attributions/{{attribution}}/attributions.{{shard}}.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(480),
    params:
        cache=f"{R}/.state/attributions/{{attribution}}/{{shard}}.h5",
        execution=execution("attributions"),
    message:
        "attributions {wildcards.attribution}, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli attributions --config {input.config:q} --manifest {input.manifest:q}"
        " --model {input.model:q} --attributions {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule attribution_statistics:
    input:
        config=f"{R}/config/attributions/{{attribution}}/attribution_statistics.json",
        manifests=manifests("train"),
        attributions=over_shards("train", f"{R}/attributions/{{attribution}}/attributions/{{shard}}.h5"),
    output:
        f"{R}/attributions/{{attribution}}/statistics.csv",
    log:
        f"{R}/logs/attributions/{{attribution}}/attribution_statistics.log",
    benchmark:
        f"{R}/benchmarks/attributions/{{attribution}}/attribution_statistics.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        manifests=one_pattern("manifests"),
        attributions=one_pattern("attributions"),
        execution=execution("attribution_statistics"),
    message:
        "what {wildcards.attribution} recorded of its objects"
    shell:
        "python -m wsss_core.cli attribution_statistics --config {input.config:q} --manifests {params.manifests:q}"
        " --attributions {params.attributions:q} --statistics {output:q} {params.execution} > {log:q} 2>&1"
