# Cheap labels in, pixel masks and a trained segmentation network out.
#
#   snakemake --cores all                                   the demo (config.yaml)
#   snakemake --cores all --configfile config/voc12.yaml    PASCAL VOC 2012 with the papers' settings
#
# A configuration names stages and what each starts from; every step of a stage reads one small JSON
# (results/<run>/config) and reruns only if that, its code or its data change. docs/architecture.md tells more.

from snakemake.utils import min_version

min_version("9.26.1")

if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/dataset.smk"
include: "rules/classify.smk"
include: "rules/seeds.smk"
include: "rules/boxes.smk"
include: "rules/instances.smk"
include: "rules/refine.smk"
include: "rules/segment.smk"
include: "rules/results.smk"
include: "rules/report.smk"
include: "rules/toy.smk"


localrules:
    all,
    dataset,
    classifiers,
    seeds,
    masks,
    segmentations,
    detectors,
    instances,
    figures,


rule all:
    default_target: True
    input:
        REPORT,
        RESULTS,


rule dataset:
    input:
        f"{R}/dataset/images.csv",


rule classifiers:
    input:
        products("classifiers"),


rule seeds:
    input:
        products("seeds"),


rule masks:
    input:
        products("refinements"),


rule segmentations:
    input:
        products("segmentations"),


rule detectors:
    input:
        products("detectors"),


rule instances:
    input:
        products("instances"),
        products("instance_networks"),


rule figures:
    input:
        FIGURES,


onstart:
    for line in overtaken_lines(Path(R)):
        print(f"warning: {line}")
    write_start(Path(R), config, [str(path) for path in workflow.configfiles])


onsuccess:
    for line in health_lines([Path(HEALTH)]):
        print(line)


onerror:
    print(f"A step failed. Its log is named above; all logs are in {R}/logs. Finished files are kept.")
    for line in health_lines(Path(health_path(name)) for name in current("classifiers")):
        print(line)
