# Everything a run made, on one page.

REPORT = f"{R}/report.html"


rule report_config:
    output:
        f"{R}/config/report.json",
    log:
        f"{R}/logs/config/report.log",
    localrule: True
    conda:
        "../envs/wsss.yaml"
    params:
        text=CONFIGURATION.report_json(),
    message:
        "settings of the report"
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


rule report_page:
    input:
        config=f"{R}/config/report.json",
        table=f"{R}/dataset/images.csv",
        template=f"{workflow.basedir}/wsss_core/report/page.html",
        style=f"{workflow.basedir}/wsss_core/report/page.css",
        products=lambda wildcards: [path for name in CONFIGURATION.targets for path in stage_products(name)],
    output:
        report(
            REPORT,
            caption="../report/page.rst",
            category="Overview",
        ),
    log:
        f"{R}/logs/report.log",
    benchmark:
        f"{R}/benchmarks/report.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(30),
    params:
        run=lambda wildcards, output: str(Path(output[0]).parent),
    message:
        "the report of run {CONFIGURATION.run}"
    shell:
        "python -m wsss_core.cli report --config {input.config:q} --run {params.run:q} --report {output:q}"
        " --device cpu > {log:q} 2>&1"
