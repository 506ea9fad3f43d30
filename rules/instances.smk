# Boxes, attributions, walks or truth -> masks of single objects (HDF5 a shard) -> instance network -> its scores.


rule instances_from_boxes:
    input:
        config=f"{R}/config/instances/{{instances}}/instances.json",
        manifest=manifest("train"),
    output:
        f"{R}/instances/{{instances}}/instances/{{shard}}.h5",
    log:
        f"{R}/logs/instances/{{instances}}/instances.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/instances/{{instances}}/instances.{{shard}}.tsv"
    wildcard_constraints:
        instances=stages_of("instances_from_boxes"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        cache=f"{R}/.state/instances/{{instances}}/{{shard}}.h5",
        execution=execution("instances_from_boxes"),
    message:
        "masks of the objects {wildcards.instances}, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli instances --config {input.config:q} --manifest {input.manifest:q}"
        " --instances {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule instances_from_prompts:
    input:
        config=f"{R}/config/instances/{{instances}}/instances.json",
        manifest=manifest("train"),
    output:
        f"{R}/instances/{{instances}}/instances/{{shard}}.h5",
    log:
        f"{R}/logs/instances/{{instances}}/instances.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/instances/{{instances}}/instances.{{shard}}.tsv"
    wildcard_constraints:
        instances=stages_of("instances_from_prompts"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=runtime(240),
    params:
        weights=lambda wildcards: folder_state(settings(wildcards.instances, "instances")["weights"]),
        cache=f"{R}/.state/instances/{{instances}}/{{shard}}.h5",
        execution=execution("instances_from_prompts"),
    message:
        "masks of the objects {wildcards.instances} from boxes as prompts, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli instances --config {input.config:q} --manifest {input.manifest:q}"
        " --instances {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule instances_from_attributions:
    input:
        config=f"{R}/config/instances/{{instances}}/instances.json",
        manifest=manifest("train"),
        attributions=lambda wildcards: (
            f"{R}/attributions/{upstream(wildcards, 'instances', 'attribution')}/attributions/{wildcards.shard}.h5"
        ),
    output:
        f"{R}/instances/{{instances}}/instances/{{shard}}.h5",
    log:
        f"{R}/logs/instances/{{instances}}/instances.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/instances/{{instances}}/instances.{{shard}}.tsv"
    wildcard_constraints:
        instances=stages_of("instances_from_attributions"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        cache=f"{R}/.state/instances/{{instances}}/{{shard}}.h5",
        execution=execution("instances_from_attributions"),
    message:
        "masks of the objects {wildcards.instances} from attributions, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli instances --config {input.config:q} --manifest {input.manifest:q}"
        " --attributions {input.attributions:q}"
        " --instances {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule fitted_instances:
    input:
        config=f"{R}/config/instances/{{instances}}/fitted_instances.json",
        manifest=manifest("train"),
        start=lambda wildcards: (
            f"{R}/instances/{upstream(wildcards, 'instances', 'instances')}/instances/{wildcards.shard}.h5"
        ),
    output:
        f"{R}/instances/{{instances}}/instances/{{shard}}.h5",
    log:
        f"{R}/logs/instances/{{instances}}/fitted_instances.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/instances/{{instances}}/fitted_instances.{{shard}}.tsv"
    wildcard_constraints:
        instances=stages_of("fitted_instances"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        folder=lambda wildcards: folder_state(settings(wildcards.instances, "fitted_instances")["folder"]),
        cache=f"{R}/.state/instances/{{instances}}/{{shard}}.h5",
        execution=execution("fitted_instances"),
    message:
        "masks of the objects {wildcards.instances} fitted to proposals, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli fitted_instances --config {input.config:q} --manifest {input.manifest:q}"
        " --start {input.start:q} --instances {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule true_instances:
    input:
        config=f"{R}/config/instances/{{instances}}/true_instances.json",
        manifest=manifest("train"),
    output:
        f"{R}/instances/{{instances}}/instances/{{shard}}.h5",
    log:
        f"{R}/logs/instances/{{instances}}/true_instances.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/instances/{{instances}}/true_instances.{{shard}}.tsv"
    wildcard_constraints:
        instances=stages_of("true_instances"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        cache=f"{R}/.state/instances/{{instances}}/{{shard}}.h5",
        execution=execution("true_instances"),
    message:
        "true masks of the objects {wildcards.instances}, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli true_instances --config {input.config:q} --manifest {input.manifest:q}"
        " --instances {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule walked_instances:
    input:
        config=f"{R}/config/instances/{{instances}}/walked_instances.json",
        manifest=manifest("train"),
        maps=lambda wildcards: (
            f"{R}/seeds/{CONFIGURATION.ancestor(wildcards.instances, 'seeds').name}/maps/{wildcards.shard}.h5"
        ),
        model=lambda wildcards: (f"{R}/refinements/{upstream(wildcards, 'instances', 'walk')}/network.pt"),
    output:
        f"{R}/instances/{{instances}}/instances/{{shard}}.h5",
    log:
        f"{R}/logs/instances/{{instances}}/walked_instances.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/instances/{{instances}}/walked_instances.{{shard}}.tsv"
    wildcard_constraints:
        instances=stages_of("walked_instances"),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        cache=f"{R}/.state/instances/{{instances}}/{{shard}}.h5",
        execution=execution("walked_instances"),
    message:
        "masks of the objects {wildcards.instances} from a walk, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli walked_instances --config {input.config:q} --manifest {input.manifest:q}"
        " --maps {input.maps:q} --model {input.model:q}"
        " --instances {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule instances_scores:
    input:
        config=f"{R}/config/instances/{{instances}}/instance_scores.json",
        manifests=manifests("train"),
        instances=over_shards("train", f"{R}/instances/{{instances}}/instances/{{shard}}.h5"),
    output:
        f"{R}/instances/{{instances}}/instance_scores.csv",
    log:
        f"{R}/logs/instances/{{instances}}/instance_scores.log",
    benchmark:
        f"{R}/benchmarks/instances/{{instances}}/instance_scores.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(60),
    params:
        manifests=one_pattern("manifests"),
        instances=one_pattern("instances"),
        execution=execution("instances_scores"),
    message:
        "scoring the masks of the objects {wildcards.instances}"
    shell:
        "python -m wsss_core.cli instance_scores --config {input.config:q} --manifests {params.manifests:q}"
        " --instances {params.instances:q} --scores {output:q} {params.execution} > {log:q} 2>&1"


rule instance_networks_train:
    input:
        config=f"{R}/config/instance_networks/{{instance_network}}/train.json",
        table=table("train"),
        labels=lambda wildcards: expand(
            f"{R}/instances/{upstream(wildcards, 'instance_network', 'instances')}/instances/{{shard}}.h5",
            shard=shards("train"),
        ),
        weights=weight_files("instance_network"),
    output:
        model=f"{R}/instance_networks/{{instance_network}}/model.pt",
        history=f"{R}/instance_networks/{{instance_network}}/history.csv",
    log:
        f"{R}/logs/instance_networks/{{instance_network}}/train.log",
    benchmark:
        f"{R}/benchmarks/instance_networks/{{instance_network}}/train.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: TRAIN_THREADS
    resources:
        mem_mb=memory(8000),
        runtime=runtime(1440),
    params:
        labels=one_pattern("labels"),
        execution=execution("instance_networks_train"),
        state=f"{R}/.state/instance_networks/{{instance_network}}.pt",
    message:
        "training instance network {wildcards.instance_network}; log: {log}"
    shell:
        "python -m wsss_core.cli train --config {input.config:q} --table {input.table:q} --labels {params.labels:q}"
        " --model {output.model:q} --history {output.history:q} --state {params.state:q} {params.execution} > {log:q} 2>&1"


rule instance_predictions:
    input:
        config=f"{R}/config/instance_networks/{{instance_network}}/instance_predictions.json",
        manifest=manifest("val"),
        model=f"{R}/instance_networks/{{instance_network}}/model.pt",
    output:
        f"{R}/instance_networks/{{instance_network}}/predictions/{{shard}}.h5",
    log:
        f"{R}/logs/instance_networks/{{instance_network}}/instance_predictions.{{shard}}.log",
    benchmark:
        f"{R}/benchmarks/instance_networks/{{instance_network}}/instance_predictions.{{shard}}.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(240),
    params:
        cache=f"{R}/.state/instance_networks/{{instance_network}}/{{shard}}.h5",
        execution=execution("instance_predictions"),
    message:
        "instances predicted by {wildcards.instance_network}, shard {wildcards.shard}; log: {log}"
    shell:
        "python -m wsss_core.cli instance_predictions --config {input.config:q} --manifest {input.manifest:q}"
        " --model {input.model:q} --predictions {output:q} --cache {params.cache:q} {params.execution} > {log:q} 2>&1"


rule instance_networks_scores:
    input:
        config=f"{R}/config/instance_networks/{{instance_network}}/instance_scores.json",
        manifests=manifests("val"),
        instances=over_shards("val", f"{R}/instance_networks/{{instance_network}}/predictions/{{shard}}.h5"),
    output:
        f"{R}/instance_networks/{{instance_network}}/instance_scores.csv",
    log:
        f"{R}/logs/instance_networks/{{instance_network}}/instance_scores.log",
    benchmark:
        f"{R}/benchmarks/instance_networks/{{instance_network}}/instance_scores.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(60),
    params:
        manifests=one_pattern("manifests"),
        instances=one_pattern("instances"),
        execution=execution("instance_networks_scores"),
    message:
        "scoring the instances predicted by {wildcards.instance_network}"
    shell:
        "python -m wsss_core.cli instance_scores --config {input.config:q} --manifests {params.manifests:q}"
        " --instances {params.instances:q} --scores {output:q} {params.execution} > {log:q} 2>&1"
