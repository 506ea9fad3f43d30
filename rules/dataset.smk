# Any data set -> one image table, dealt into shards.


localrules:
    step_config,
    dataset_config,


rule step_config:
    output:
        f"{R}/config/{{section}}/{{name}}/{{step}}.json",
    log:
        f"{R}/logs/config/{{section}}/{{name}}/{{step}}.log",
    wildcard_constraints:
        section="classifiers|seeds|refinements|segmentations",
        name=one_of(CONFIGURATION.stages),
        step=r"\w+",
    conda:
        "../envs/wsss.yaml"
    params:
        text=lambda wildcards: CONFIGURATION.step_json(wildcards.section, wildcards.name, wildcards.step),
    message:
        "settings of {wildcards.section}/{wildcards.name}: {wildcards.step}"
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


rule dataset_config:
    output:
        f"{R}/config/dataset.json",
    log:
        f"{R}/logs/config/dataset.log",
    conda:
        "../envs/wsss.yaml"
    params:
        text=CONFIGURATION.dataset_json(),
    message:
        "settings of the data set"
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


checkpoint index:
    input:
        config=f"{R}/config/dataset.json",
    output:
        table=f"{R}/dataset/images.csv",
        shards=directory(f"{R}/dataset/shards"),
    log:
        f"{R}/logs/dataset/index.log",
    benchmark:
        f"{R}/benchmarks/dataset/index.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 2
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        listing=lambda wildcards: listing_digest(CONFIGURATION.dataset),
        problems=f"{R}/problems.csv",
        cache=f"{R}/.state/dataset.json",
    message:
        "reading and checking all images"
    shell:
        "python -m wsss_core.cli index --config {input.config:q} --table {output.table:q} --shards {output.shards:q}"
        " --problems {params.problems:q} --cache {params.cache:q} --workers {threads} > {log:q} 2>&1"
