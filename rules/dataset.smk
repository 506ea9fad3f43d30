# Settings of every step -> one small JSON each; any data set -> one image table, dealt into shards.


rule step_config:
    output:
        f"{R}/config/{{stage}}/{{step}}.json",
    log:
        f"{R}/logs/config/{{stage}}/{{step}}.log",
    wildcard_constraints:
        stage=one_of(configured_stages(CONFIGURATION)),
        step="(?!results|health|sheet|report)\\w+",
    localrule: True
    conda:
        "../envs/wsss.yaml"
    params:
        text=lambda wildcards: step_json(CONFIGURATION, wildcards.stage, wildcards.step),
    message:
        "settings of {wildcards.stage}: {wildcards.step}"
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


# Packed, as a shell takes no command of more than 128 KiB, which the settings of some 200 stages fill.
rule run_config:
    output:
        f"{R}/config/run/{{step}}.json",
    log:
        f"{R}/logs/config/run/{{step}}.log",
    wildcard_constraints:
        step="results|health|sheet|report",
    localrule: True
    conda:
        "../envs/wsss.yaml"
    params:
        packed=lambda wildcards: packed(step_json(CONFIGURATION, "run", wildcards.step)),
    message:
        "settings of the run: {wildcards.step}"
    shell:
        "printf '%s' {params.packed:q} | python -c 'import base64, sys, zlib;"
        " print(zlib.decompress(base64.b64decode(sys.stdin.read())).decode())' > {output:q} 2> {log:q}"


checkpoint index:
    input:
        config=f"{R}/config/dataset/index.json",
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
        drawn=f"{R}/dataset/masks",
        execution=execution("index"),
    message:
        "reading and checking all images; log: {log}"
    shell:
        "python -m wsss_core.cli index --config {input.config:q} --table {output.table:q} --shards {output.shards:q}"
        " --problems {params.problems:q} --cache {params.cache:q} --drawn {params.drawn:q} {params.execution}"
        " > {log:q} 2>&1"
