"""Cyclery: from datasets to verdicts.

Read the rules in the order of the graph: data, lr range, train, aggregate, report.
Runtime settings live in profiles/, what to run in config/.

    snakemake --cores all                      every selected paper, to the report
    snakemake --cores all clr                  one paper
    snakemake --cores all clr.staged         one experiment of it
    snakemake --cores all clr.CLR-2            one claim of it
    snakemake --cores all --config tier=desk seeds=20
"""

from snakemake.utils import min_version

min_version("9.18")


include: "workflow/rules/package.smk"


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/lrrange.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/report.smk"


wildcard_constraints:
    dataset=r"[A-Za-z][\w-]*",
    group=r"[A-Za-z][\w.-]*",
    part=r"[A-Za-z][\w.-]*",
    run=r"[A-Za-z][\w.~-]*",
    shard=r"L\d+-\d+",


rule all:
    """Everything that config/config.yaml selects, to the report."""
    default_target: True
    input:
        rules.render.output,
        due(),


# Every paper, experiment and claim is a target by its name.
for part in PLAN.parts():

    rule:
        name:
            part
        input:
            PLAN.evidence(part),
            due(part),
