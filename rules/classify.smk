# Class tags -> classifier checkpoint.


rule train_classifier:
    input:
        config=f"{R}/config/classifiers/{{classifier}}/train.json",
        table=table("train"),
        weights=weight_files("classifiers", "classifier", "train"),
        init=initial_classifier,
    output:
        model=f"{R}/classifiers/{{classifier}}/model.pt",
        history=f"{R}/classifiers/{{classifier}}/history.csv",
    log:
        f"{R}/logs/classifiers/{{classifier}}/train.log",
    benchmark:
        f"{R}/benchmarks/classifiers/{{classifier}}/train.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: TRAIN_THREADS
    resources:
        mem_mb=memory(6000),
        runtime=runtime(720),
    params:
        execution=execution(training=True),
        state=f"{R}/.state/classifiers/{{classifier}}.pt",
    message:
        "training classifier {wildcards.classifier}"
    shell:
        "python -m wsss_core.cli classify --config {input.config:q} --table {input.table:q} --init {input.init:q}"
        " --model {output.model:q} --history {output.history:q} --state {params.state:q} {params.execution} > {log:q} 2>&1"
