# Everything a run made, on one page.

REPORT = f"{R}/report.html"
PAGE = PACKAGE / "report"
SHEET = [f"{R}/sheet"] if CONFIGURATION.report["sheet"] else []
FEATURES = [f"{R}/analyses/features.svg"] if CONFIGURATION.feature_classifiers else []


rule features:
    input:
        config=f"{R}/config/features/features.json",
        table=f"{R}/dataset/images.csv",
        classifiers=[classifier_path(name) for name in CONFIGURATION.feature_classifiers],
    output:
        features=f"{R}/analyses/features.csv",
        figure=f"{R}/analyses/features.svg",
    log:
        f"{R}/logs/analyses/features.log",
    benchmark:
        f"{R}/benchmarks/analyses/features.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=runtime(60),
    params:
        execution=execution("features"),
    message:
        "features of {CONFIGURATION.feature_classifiers} in the plane; log: {log}"
    shell:
        "python -m wsss_core.cli features --config {input.config:q} --table {input.table:q}"
        " --classifiers {input.classifiers:q} --features {output.features:q} --figure {output.figure:q}"
        " {params.execution} > {log:q} 2>&1"


rule sheet:
    input:
        config=f"{R}/config/run/sheet.json",
        table=f"{R}/dataset/images.csv",
        template=f"{PAGE}/sheet.html",
        maps=all_maps,
        masks=all_masks,
        thresholds=target_products,
    output:
        directory(f"{R}/sheet"),
    log:
        f"{R}/logs/sheet.log",
    benchmark:
        f"{R}/benchmarks/sheet.tsv"
    conda:
        "../envs/wsss.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=runtime(60),
    params:
        run=lambda wildcards, output: str(Path(output[0]).parent),
    message:
        "the contact sheet of run {CONFIGURATION.run}; log: {log}"
    shell:
        "python -m wsss_core.cli sheet --config {input.config:q} --run {params.run:q} --sheet {output:q}"
        " --threads {threads} > {log:q} 2>&1"


rule report:
    input:
        config=f"{R}/config/run/report.json",
        table=f"{R}/dataset/images.csv",
        template=f"{PAGE}/page.html",
        style=f"{PAGE}/page.css",
        products=target_products,
        health=HEALTH,
        sheet=SHEET,
        figures=FIGURES,
        features=FEATURES,
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
        " --threads {threads} > {log:q} 2>&1"
