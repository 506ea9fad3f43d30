# The toy experiment of RIB: digits with marks -> high gradient ratios of a small classifier's layers. It needs no data.

TOY = f"{R}/toy"


rule toy:
    input:
        config=f"{R}/config/toy/toy.json",
        digits=digit_files,
    output:
        f"{TOY}/hgr_layers.csv",
        f"{TOY}/hgr_iterations.csv",
        f"{TOY}/layers.svg",
        f"{TOY}/iterations.svg",
    log:
        f"{R}/logs/toy.log",
    benchmark:
        f"{R}/benchmarks/toy.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(30),
    params:
        folder=lambda wildcards, output: str(Path(output[0]).parent),
    message:
        "the toy experiment of RIB; log: {log}"
    shell:
        "python -m wsss_core.cli toy --config {input.config:q} --folder {params.folder:q}"
        " --threads {threads} > {log:q} 2>&1"
