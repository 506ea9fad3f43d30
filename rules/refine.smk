# Class activation maps -> label masks, by the shape of what they are made from: maps, walked scores, masks, masks and a
# network. To get walked scores, IRN and PSA make labels of the maps, train a network on these, and walk the maps.


rule masks_from_maps:
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
        refinement=stages_of("masks_from_maps"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        execution=execution("masks_from_maps"),
    message:
        "masks {wildcards.refinement} from seed maps, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli masks --config {input.config:q} --manifest {input.manifest:q}"
        " --maps {input.maps:q} --threshold {input.threshold:q} --masks {output:q} {params.execution} > {log:q} 2>&1"


rule masks_from_prompts:
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
        refinement=stages_of("masks_from_prompts"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=runtime(240),
    params:
        weights=lambda wildcards: folder_state(settings(wildcards.refinement, "masks")["weights"]),
        execution=execution("masks_from_prompts"),
    message:
        "masks {wildcards.refinement} from seed maps as prompts, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli masks --config {input.config:q} --manifest {input.manifest:q}"
        " --maps {input.maps:q} --threshold {input.threshold:q} --masks {output:q} {params.execution} > {log:q} 2>&1"


rule labels:
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
        refinement=stages_of("labels"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        cache=f"{R}/.state/refinements/{{refinement}}/labels/{{shard}}.h5",
        execution=execution("labels"),
    message:
        "confident labels for {wildcards.refinement}, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli labels --config {input.config:q} --manifest {input.manifest:q}"
        " --maps {input.maps:q} --labels {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule refinements_train:
    input:
        config=f"{R}/config/refinements/{{refinement}}/train.json",
        table=table("train"),
        labels=over_shards("train", f"{R}/refinements/{{refinement}}/labels/{{shard}}.h5"),
        classifier=classifier_of("refinement"),
        weights=weight_files("refinement"),
    output:
        model=f"{R}/refinements/{{refinement}}/network.pt",
        history=f"{R}/refinements/{{refinement}}/history.csv",
    log:
        f"{R}/logs/refinements/{{refinement}}/train.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/train.tsv"
    wildcard_constraints:
        refinement=stages_of("refinements_train"),
    conda:
        "../envs/wsss.yaml"
    threads: TRAIN_THREADS
    resources:
        mem_mb=memory(8000),
        runtime=runtime(720),
    params:
        labels=one_pattern("labels"),
        execution=execution("refinements_train"),
        state=f"{R}/.state/refinements/{{refinement}}.pt",
    message:
        "training the network of {wildcards.refinement}; log: {log}"
    shell:
        "python -m wsss_core.cli train --config {input.config:q} --table {input.table:q} --labels {params.labels:q}"
        " --classifier {input.classifier:q} --model {output.model:q} --history {output.history:q}"
        " --state {params.state:q} {params.execution} > {log:q} 2>&1"


rule refinements_pretrained:
    input:
        config=f"{R}/config/refinements/{{refinement}}/pretrained.json",
        table=table("train"),
        file=lambda wildcards: settings(wildcards.refinement, "pretrained")["file"],
    output:
        f"{R}/refinements/{{refinement}}/network.pt",
    log:
        f"{R}/logs/refinements/{{refinement}}/pretrained.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/pretrained.tsv"
    wildcard_constraints:
        refinement=stages_of("refinements_pretrained"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(30),
    params:
        execution=execution("refinements_pretrained"),
    message:
        "taking in the network of {wildcards.refinement}; log: {log}"
    shell:
        "python -m wsss_core.cli pretrained --config {input.config:q} --table {input.table:q} --model {output:q}"
        " {params.execution} > {log:q} 2>&1"


rule walk:
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
        refinement=stages_of("walk"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(60),
    params:
        cache=f"{R}/.state/refinements/{{refinement}}/{{shard}}.h5",
        execution=execution("walk"),
    message:
        "random walk {wildcards.refinement}, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli walk --config {input.config:q} --manifest {input.manifest:q}"
        " --maps {input.maps:q} --model {input.model:q} --scores {output:q} --cache {params.cache:q}"
        " {params.execution} > {log:q} 2>&1"


rule refinements_scores:
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
        refinement=stages_of("refinements_scores"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        manifests=one_pattern("manifests"),
        maps=one_pattern("maps"),
        execution=execution("refinements_scores"),
    message:
        "scoring the walk of {wildcards.refinement} over all thresholds"
    shell:
        "python -m wsss_core.cli scores --config {input.config:q} --manifests {params.manifests:q}"
        " --maps {params.maps:q} --curve {output.curve:q} --evaluation {output.evaluation:q}"
        " --threshold {output.threshold:q} {params.execution} > {log:q} 2>&1"


rule masks_from_scores:
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
        refinement=stages_of("masks_from_scores"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        execution=execution("masks_from_scores"),
    message:
        "masks {wildcards.refinement} from walked scores, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli masks --config {input.config:q} --manifest {input.manifest:q}"
        " --scores {input.scores:q} --threshold {input.threshold:q} --masks {output:q}"
        " {params.execution} > {log:q} 2>&1"


rule masks_from_masks:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        start=masks_under("masks"),
        otherwise=masks_under("otherwise"),
    output:
        directory(f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/masks.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/masks.{{shard}}.tsv"
    wildcard_constraints:
        refinement=stages_of("masks_from_masks"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=runtime(60),
    params:
        folder=lambda wildcards: folder_state(settings(wildcards.refinement, "masks").get("folder")),
        execution=execution("masks_from_masks"),
    message:
        "masks {wildcards.refinement} from masks, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli masks --config {input.config:q} --manifest {input.manifest:q}"
        " --start {input.start:q} --otherwise {input.otherwise:q} --masks {output:q} {params.execution} > {log:q} 2>&1"


rule masks_from_network:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        start=masks_under("masks"),
        model=lambda wildcards: f"{R}/segmentations/{upstream(wildcards, 'refinement', 'segmentation')}/model.pt",
    output:
        directory(f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/masks.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/masks.{{shard}}.tsv"
    wildcard_constraints:
        refinement=stages_of("masks_from_network"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(60),
    params:
        execution=execution("masks_from_network"),
    message:
        "masks {wildcards.refinement} from masks and a network, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli masks --config {input.config:q} --manifest {input.manifest:q}"
        " --start {input.start:q} --model {input.model:q} --masks {output:q} {params.execution} > {log:q} 2>&1"


rule masks_from_instances:
    input:
        config=f"{R}/config/refinements/{{refinement}}/masks.json",
        manifest=manifest("train"),
        instances=lambda wildcards: (
            f"{R}/instances/{upstream(wildcards, 'refinement', 'instances')}/instances/{wildcards.shard}.h5"
        ),
    output:
        directory(f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    log:
        f"{R}/logs/refinements/{{refinement}}/masks.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/refinements/{{refinement}}/masks.{{shard}}.tsv"
    wildcard_constraints:
        refinement=stages_of("masks_from_instances"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        execution=execution("masks_from_instances"),
    message:
        "masks {wildcards.refinement} from the masks of objects, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli masks --config {input.config:q} --manifest {input.manifest:q}"
        " --instances {input.instances:q} --masks {output:q} {params.execution} > {log:q} 2>&1"


rule refinements_evaluation:
    input:
        config=f"{R}/config/refinements/{{refinement}}/evaluation.json",
        manifests=manifests("train"),
        masks=over_shards("train", f"{R}/refinements/{{refinement}}/masks/{{shard}}"),
    output:
        domains=f"{R}/refinements/{{refinement}}/domains.csv",
        evaluation=report(
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
        execution=execution("refinements_evaluation"),
    message:
        "scoring the pseudo-masks of {wildcards.refinement}"
    shell:
        "python -m wsss_core.cli evaluation --config {input.config:q} --manifests {params.manifests:q}"
        " --masks {params.masks:q} --evaluation {output.evaluation:q} --domains {output.domains:q}"
        " {params.execution} > {log:q} 2>&1"
