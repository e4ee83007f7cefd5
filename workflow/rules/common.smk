"""Helpers of all rules.

Needs: config/ (validated here, before any job), and what `dvc pull` brought, which is put in place
once. Makes: PLAN, and the paths and parameters that rules ask it for. The package does the
thinking; a rule is paths, parameters, resources and one command line.
"""

import sys
from pathlib import Path

try:
    PROJECT = load(Path.cwd(), config)
    if workflow.is_main_process:
        # A plain `dvc pull` brings archives alone; with them may come seeds that the plan has.
        install_pulled(PROJECT)
    PLAN = Graph.of(PROJECT)
except UserError as mistake:
    # One message and no traceback, before any job.
    print(f"cyclery: {mistake}", file=sys.stderr)
    sys.exit(2)


# Before the first job; a dry run has none and changes nothing.
onstart:
    PLAN.reset_future_times()


RESULTS = PLAN.results
# Other tiers are planned where the atlas is asked for.
ATLAS = Atlas(PLAN)


def due(part=None):
    """What a target asks for by name, since it is lost or damaged; of the report without a part."""

    def files(wildcards):
        try:
            return PLAN.due(part)
        except UserError as mistake:
            # Snakemake would show a traceback.
            print(f"cyclery: {mistake}", file=sys.stderr)
            sys.exit(2)

    return files


def cyclery(command):
    """One command of the package, with the configuration that was planned."""
    return f"python -m cyclery {PLAN.overrides} {command.strip()}"


def cyclery_at_tier(command):
    """One command at the tier of a wildcard, as the main file has it in the same folders."""
    return f"python -m cyclery {ATLAS.places} --set tier={{wildcards.tier}} {command.strip()}"


def benchmark_labels(wildcards):
    """What Snakemake's report says of a benchmark table."""
    return table_labels(Path(PLAN.report) / "benchmarks" / f"{wildcards.name}.tex")


def published(tier):
    """The index of what is published of a tier."""
    return Path("results/published", tier, "index.json")


def atlas_evidence(wildcards):
    """The evidence of all tiers; one message where there is none to be had."""
    try:
        for tier in ATLAS.others:
            if workflow.is_main_process and published(tier).exists():
                install_pulled(ATLAS.project(tier))
        return ATLAS.evidence()
    except UserError as mistake:
        print(f"cyclery: {mistake}", file=sys.stderr)
        sys.exit(2)
