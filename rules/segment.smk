# Label masks -> segmentation network -> predictions and evaluation.


rule segmentations_train:
    input:
        config=f"{R}/config/segmentations/{{segmentation}}/train.json",
        table=table("train"),
        labels=masks_to_train_on("masks"),
        truth=masks_to_train_on("truth"),
        classifier=classifier_of("segmentation"),
        weights=weight_files("segmentation"),
    output:
        model=f"{R}/segmentations/{{segmentation}}/model.pt",
        history=f"{R}/segmentations/{{segmentation}}/history.csv",
    log:
        f"{R}/logs/segmentations/{{segmentation}}/train.log",
    benchmark:
        f"{R}/benchmarks/segmentations/{{segmentation}}/train.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: TRAIN_THREADS
    resources:
        mem_mb=memory(8000),
        runtime=runtime(1440),
    params:
        labels=one_pattern("labels"),
        truth=one_pattern("truth"),
        execution=execution("segmentations_train"),
        state=f"{R}/.state/segmentations/{{segmentation}}.pt",
    message:
        "training segmentation network {wildcards.segmentation}; log: {log}"
    shell:
        "python -m wsss_core.cli train --config {input.config:q} --table {input.table:q} --labels {params.labels:q}"
        " --truth {params.truth:q} --classifier {input.classifier:q} --model {output.model:q}"
        " --history {output.history:q}"
        " --state {params.state:q} {params.execution} > {log:q} 2>&1"


rule predictions:
    input:
        config=f"{R}/config/segmentations/{{segmentation}}/predictions.json",
        manifest=manifest("val"),
        model=f"{R}/segmentations/{{segmentation}}/model.pt",
    output:
        directory(f"{R}/segmentations/{{segmentation}}/predictions/{{shard}}"),
    log:
        f"{R}/logs/segmentations/{{segmentation}}/predictions.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/segmentations/{{segmentation}}/predictions.{{shard}}.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        execution=execution("predictions"),
    message:
        "predictions of {wildcards.segmentation}, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli predictions --config {input.config:q} --manifest {input.manifest:q}"
        " --model {input.model:q} --predictions {output:q} {params.execution} > {log:q} 2>&1"


rule segmentations_evaluation:
    input:
        config=f"{R}/config/segmentations/{{segmentation}}/evaluation.json",
        manifests=manifests("val"),
        masks=over_shards("val", f"{R}/segmentations/{{segmentation}}/predictions/{{shard}}"),
    output:
        domains=f"{R}/segmentations/{{segmentation}}/domains.csv",
        evaluation=report(
            f"{R}/segmentations/{{segmentation}}/evaluation.csv",
            caption="../report/evaluation.rst",
            category="Segmentation",
            labels={"stage": "{segmentation}"},
        ),
    log:
        f"{R}/logs/segmentations/{{segmentation}}/evaluation.log",
    benchmark:
        f"{R}/benchmarks/segmentations/{{segmentation}}/evaluation.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        manifests=one_pattern("manifests"),
        masks=one_pattern("masks"),
        execution=execution("segmentations_evaluation"),
    message:
        "scoring the predictions of {wildcards.segmentation}"
    shell:
        "python -m wsss_core.cli evaluation --config {input.config:q} --manifests {params.manifests:q}"
        " --masks {params.masks:q} --evaluation {output.evaluation:q} --domains {output.domains:q}"
        " {params.execution} > {log:q} 2>&1"
