"""Evidence.

Needs: the records and range tests of a part (a paper, an experiment, a claim). Makes:
{results}/{tier}/evidence/{part}.json with statistics and verdicts, and
{results}/{tier}/tables/{part}.csv, the tidy table with one row for each run, and beside it the list
of the SHA-256 of both, for `sha256sum --check`. Training has the higher priority: it takes all
cores of a small machine, so evidence in between would leave all but one idle.
"""


rule evidence:
    """Aggregate the records of a part, test its claims and say what held."""
    input:
        records=lambda wildcards: PLAN.record_files(wildcards.part),
        ranges=lambda wildcards: PLAN.part_range_files(wildcards.part),
    output:
        evidence=PLAN.evidence("{part}"),
        table=PLAN.table("{part}"),
        sums=PLAN.sums("{part}"),
    log:
        f"{RESULTS}/logs/evidence/{{part}}.log",
    conda:
        "../envs/report.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        claims=lambda wildcards: PLAN.part_digest(wildcards.part),
        code=PLAN.code,
    shell:
        cyclery("""
            evidence {wildcards.part:q} \
                --expect {params.claims} \
                --output {output.evidence:q} \
                --table {output.table:q} \
                --log {log:q}
            """)
