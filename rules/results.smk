# Evaluations and benchmarks of all stages -> one table; the table -> figures. Maps and masks -> signs of health.

RESULTS = f"{R}/results.csv"
FIGURE_NAMES = [figure["name"] for figure in CONFIGURATION.figures]
FIGURES = [f"{R}/figures/{name}.svg" for name in FIGURE_NAMES]
HEALTH = f"{R}/health.json"


rule results:
    input:
        config=f"{R}/config/run/results.json",
        products=target_products,
    output:
        report(
            RESULTS,
            caption="../report/results.rst",
            category="Overview",
        ),
    log:
        f"{R}/logs/results.log",
    benchmark:
        f"{R}/benchmarks/results.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=runtime(10),
    params:
        run=lambda wildcards, output: str(Path(output[0]).parent),
    message:
        "the table of results of run {CONFIGURATION.run}"
    shell:
        "python -m wsss_core.cli results --config {input.config:q} --run {params.run:q} --table {output:q}"
        " --threads {threads} > {log:q} 2>&1"


rule figure:
    input:
        config=f"{R}/config/figures/{{figure}}/figure.json",
        results=RESULTS,
    output:
        report(
            f"{R}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{R}/logs/figures/{{figure}}.log",
    benchmark:
        f"{R}/benchmarks/figures/{{figure}}.tsv"
    wildcard_constraints:
        figure=one_of(FIGURE_NAMES),
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=runtime(10),
    message:
        "figure {wildcards.figure}"
    shell:
        "python -m wsss_core.cli figure --config {input.config:q} --results {input.results:q} --figure {output:q}"
        " --threads {threads} > {log:q} 2>&1"


rule health:
    input:
        config=f"{R}/config/run/health.json",
        table=f"{R}/dataset/images.csv",
        tag_scores=[health_path(name) for name in current("classifiers")],
        maps=all_maps,
        masks=all_masks,
        products=target_products,
    output:
        HEALTH,
    log:
        f"{R}/logs/health.log",
    benchmark:
        f"{R}/benchmarks/health.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        run=lambda wildcards, output: str(Path(output[0]).parent),
    message:
        "signs of health of run {CONFIGURATION.run}; log: {log}"
    shell:
        "python -m wsss_core.cli health --config {input.config:q} --run {params.run:q} --health {output:q}"
        " --threads {threads} > {log:q} 2>&1"
