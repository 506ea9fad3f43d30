# Class activation maps -> label masks: thresholds, dense CRF, IRN and PSA (labels, training, random walk), agreement
# with saliency, filling of ignored pixels.

SEED_THRESHOLD = refinements_by("seed_threshold")
CRF = refinements_by("crf")
IRN = refinements_by("irn")
PSA = refinements_by("psa")
WALK = refinements_by("irn", "psa")
WALK_MASKS = refinements_by("irn", "psa", "threshold")
SALIENCY = refinements_by("saliency")
FILL = refinements_by("fill")


rule seed_threshold_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        maps=seed_maps_of,
        threshold=chosen_threshold(seed_threshold_of),
    output:
        directory(f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/masks.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/masks.{{shard}}.tsv"
    wildcard_constraints:
        refinement=SEED_THRESHOLD,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    message:
        "thresholded seeds {wildcards.refinement}, shard {wildcards.shard}"
    shell:
        "python -m wsss_core.cli seed-threshold-masks --config {input.config:q} --manifest {input.manifest:q}"
        " --maps {input.maps:q} --threshold {input.threshold:q} --masks {output:q} --device cpu --threads {threads} > {log:q} 2>&1"


rule crf_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        maps=seed_maps_of,
        threshold=chosen_threshold(seed_threshold_of),
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
        " --threshold {input.threshold:q} --masks {output:q} --device cpu --threads {threads} > {log:q} 2>&1"


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
        " --labels {output:q} --device cpu --threads {threads} > {log:q} 2>&1"


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
        labels=one_pattern("labels"),
        execution=execution("workers"),
        state=f"{R}/.state/refinements/{{refinement}}.pt",
    message:
        "training the boundary network of {wildcards.refinement}"
    shell:
        "python -m wsss_core.cli irn-train --config {input.config:q} --table {input.table:q} --labels {params.labels:q}"
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


rule psa_labels:
    input:
        config=f"{R}/config/refinements/{{refinement}}/labels.json",
        manifest=manifest("train"),
        maps=seed_maps_of,
    output:
        f"{R}/refinements/{{refinement}}/labels/{{shard}}.h5",
    log:
        f"{R}/logs/refinements/{{refinement}}/labels.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/labels.{{shard}}.tsv"
    wildcard_constraints:
        refinement=PSA,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        cache=f"{R}/.state/refinements/{{refinement}}/labels/{{shard}}.h5",
    message:
        "posteriors for {wildcards.refinement}, shard {wildcards.shard}"
    shell:
        "python -m wsss_core.cli psa-labels --config {input.config:q} --manifest {input.manifest:q} --maps {input.maps:q}"
        " --labels {output:q} --cache {params.cache:q} --device cpu --threads {threads} > {log:q} 2>&1"


rule train_psa:
    input:
        config=f"{R}/config/refinements/{{refinement}}/network.json",
        table=table("train"),
        labels=over_shards("train", f"{R}/refinements/{{refinement}}/labels/{{shard}}.h5"),
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
        refinement=PSA,
    conda:
        "../envs/wsss.yaml"
    threads: TRAIN_THREADS
    resources:
        mem_mb=memory(8000),
        runtime=runtime(720),
    params:
        labels=one_pattern("labels"),
        execution=execution("workers"),
        state=f"{R}/.state/refinements/{{refinement}}.pt",
    message:
        "training the affinity network of {wildcards.refinement}"
    shell:
        "python -m wsss_core.cli psa-train --config {input.config:q} --table {input.table:q} --labels {params.labels:q}"
        " --classifier {input.classifier:q} --model {output.model:q} --history {output.history:q}"
        " --state {params.state:q} {params.execution} > {log:q} 2>&1"


rule psa_walk:
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
        refinement=PSA,
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
        "python -m wsss_core.cli psa-walk --config {input.config:q} --manifest {input.manifest:q} --maps {input.maps:q}"
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
        refinement=WALK,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        manifests=one_pattern("manifests"),
        maps=one_pattern("maps"),
    message:
        "scoring the walk of {wildcards.refinement} over all thresholds"
    shell:
        "python -m wsss_core.cli score-maps --config {input.config:q} --manifests {params.manifests:q}"
        " --maps {params.maps:q} --curve {output.curve:q} --evaluation {output.evaluation:q} --threshold {output.threshold:q}"
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
        refinement=WALK_MASKS,
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
        " --threshold {input.threshold:q} --masks {output:q} --device cpu --threads {threads} > {log:q} 2>&1"


rule saliency_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        masks=masks_of,
    output:
        directory(f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/masks.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/masks.{{shard}}.tsv"
    wildcard_constraints:
        refinement=SALIENCY,
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=runtime(60),
    params:
        folder=lambda wildcards: folder_state(settings("refinements", wildcards.refinement, "masks")["folder"]),
    message:
        "agreement with saliency {wildcards.refinement}, shard {wildcards.shard}"
    shell:
        "python -m wsss_core.cli saliency-masks --config {input.config:q} --manifest {input.manifest:q}"
        " --masks {input.masks:q} --agreeing {output:q} --device cpu --threads {threads} > {log:q} 2>&1"


rule fill_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        masks=masks_of,
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
    params:
        manifests=one_pattern("manifests"),
        masks=one_pattern("masks"),
    message:
        "scoring the pseudo-masks of {wildcards.refinement}"
    shell:
        "python -m wsss_core.cli score-masks --config {input.config:q} --manifests {params.manifests:q}"
        " --masks {params.masks:q} --evaluation {output:q} --threads {threads} > {log:q} 2>&1"
