# Class tags -> classifier checkpoint -> how well it tells the classes apart; for W-OoD also out-of-distribution photos
# -> candidates -> those to train on.


# On the machine where Snakemake runs, as nodes of a cluster may have no network; they see the cache in the home folder.
rule imagenet:
    output:
        f"{R}/weights/{{backbone}}.txt",
    log:
        f"{R}/logs/weights/{{backbone}}.log",
    localrule: True
    conda:
        "../envs/wsss.yaml"
    message:
        "ImageNet weights of {wildcards.backbone}; log: {log}"
    shell:
        "python -m wsss_core.cli fetch {wildcards.backbone:q} --note {output:q} > {log:q} 2>&1"


rule classifiers_pretrained:
    input:
        config=f"{R}/config/classifiers/{{classifier}}/pretrained.json",
        table=table("train"),
        file=lambda wildcards: settings(wildcards.classifier, "pretrained")["file"],
    output:
        f"{R}/classifiers/{{classifier}}/model.pt",
    log:
        f"{R}/logs/classifiers/{{classifier}}/pretrained.log",
    benchmark:
        f"{R}/benchmarks/classifiers/{{classifier}}/pretrained.tsv"
    wildcard_constraints:
        classifier=stages_of("classifiers_pretrained"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(30),
    params:
        execution=execution("classifiers_pretrained"),
    message:
        "taking in classifier {wildcards.classifier}; log: {log}"
    shell:
        "python -m wsss_core.cli pretrained --config {input.config:q} --table {input.table:q} --model {output:q}"
        " {params.execution} > {log:q} 2>&1"


rule candidates:
    input:
        config=f"{R}/config/classifiers/{{classifier}}/candidates.json",
        table=table("ood"),
        classifier=initial_classifier,
    output:
        candidates=f"{R}/classifiers/{{classifier}}/candidates.csv",
        sheet=f"{R}/classifiers/{{classifier}}/candidates.html",
    log:
        f"{R}/logs/classifiers/{{classifier}}/candidates.log",
    benchmark:
        f"{R}/benchmarks/classifiers/{{classifier}}/candidates.tsv"
    wildcard_constraints:
        classifier=stages_of("candidates"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        execution=execution("candidates"),
    message:
        "ranking out-of-distribution photos for {wildcards.classifier}; log: {log}"
    shell:
        "python -m wsss_core.cli candidates --config {input.config:q} --table {input.table:q}"
        " --classifier {input.classifier:q} --candidates {output.candidates:q} --sheet {output.sheet:q}"
        " {params.execution} > {log:q} 2>&1"


# A checkpoint, so that a review that ends with the same photos trains nothing again.
checkpoint selection:
    input:
        config=f"{R}/config/classifiers/{{classifier}}/selection.json",
        table=table("ood"),
        candidates=f"{R}/classifiers/{{classifier}}/candidates.csv",
        classifier=initial_classifier,
        reviewed=reviewed_file,
    output:
        selected=f"{R}/classifiers/{{classifier}}/ood.csv",
        pictures=directory(f"{R}/classifiers/{{classifier}}/erased"),
    log:
        f"{R}/logs/classifiers/{{classifier}}/selection.log",
    benchmark:
        f"{R}/benchmarks/classifiers/{{classifier}}/selection.tsv"
    wildcard_constraints:
        classifier=stages_of("selection"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=selection_runtime,
    params:
        execution=selection_execution,
    message:
        "choosing out-of-distribution photos for {wildcards.classifier}; log: {log}"
    shell:
        "python -m wsss_core.cli selection --config {input.config:q} --table {input.table:q}"
        " --candidates {input.candidates:q} --classifier {input.classifier:q} --selected {output.selected:q}"
        " --pictures {output.pictures:q} {params.execution} > {log:q} 2>&1"


rule classifiers_train:
    input:
        config=f"{R}/config/classifiers/{{classifier}}/train.json",
        table=table("train"),
        weights=weight_files("classifier"),
        classifier=initial_classifier,
        ood=ood_table,
    output:
        model=f"{R}/classifiers/{{classifier}}/model.pt",
        history=f"{R}/classifiers/{{classifier}}/history.csv",
    log:
        f"{R}/logs/classifiers/{{classifier}}/train.log",
    benchmark:
        f"{R}/benchmarks/classifiers/{{classifier}}/train.tsv"
    wildcard_constraints:
        classifier=stages_of("classifiers_train"),
    conda:
        "../envs/wsss.yaml"
    threads: TRAIN_THREADS
    resources:
        mem_mb=memory(6000),
        runtime=runtime(720),
    params:
        execution=execution("classifiers_train"),
        state=f"{R}/.state/classifiers/{{classifier}}.pt",
    message:
        "training classifier {wildcards.classifier}; log: {log}"
    shell:
        "python -m wsss_core.cli train --config {input.config:q} --table {input.table:q}"
        " --classifier {input.classifier:q} --ood {input.ood:q} --model {output.model:q} --history {output.history:q}"
        " --state {params.state:q} {params.execution} > {log:q} 2>&1"


rule tag_scores:
    input:
        config=f"{R}/config/classifiers/{{classifier}}/tag_scores.json",
        table=table("train"),
        classifier=f"{R}/classifiers/{{classifier}}/model.pt",
        history=history_of,
    output:
        scores=f"{R}/classifiers/{{classifier}}/tag_scores.json",
        predicted=f"{R}/classifiers/{{classifier}}/predicted.csv",
    log:
        f"{R}/logs/classifiers/{{classifier}}/tag_scores.log",
    benchmark:
        f"{R}/benchmarks/classifiers/{{classifier}}/tag_scores.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(120),
    params:
        execution=execution("tag_scores"),
    message:
        "trying classifier {wildcards.classifier} on the tags; log: {log}"
    shell:
        "python -m wsss_core.cli tag_scores --config {input.config:q} --table {input.table:q}"
        " --classifier {input.classifier:q} --history {input.history:q} --scores {output.scores:q}"
        " --predicted {output.predicted:q} {params.execution} > {log:q} 2>&1"
