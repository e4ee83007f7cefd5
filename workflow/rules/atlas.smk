"""The atlas: the report over all tiers.

Needs: the evidence of every tier for every selected paper whose records are whole on disk, and what
`cyclery replicate` found at fresh seeds, where that is there; evidence of
tiers other than the configured one is made here. Makes: {results}/atlas/ with what a report has.
It trains nothing for itself: a paper without whole records at a tier is not in it, and the page
says so. What the graph of the configured tier holds to be outdated is made anew, as for its report.
Other tiers are planned only where the atlas is asked for.
"""


rule tier_evidence:
    """Test the claims of a paper at a tier that is not the configured one."""
    input:
        records=lambda wildcards: ATLAS.graph(wildcards.tier).record_files(
            wildcards.paper
        ),
        ranges=lambda wildcards: ATLAS.graph(wildcards.tier).part_range_files(
            wildcards.paper
        ),
    output:
        evidence=f"{PLAN.config.results}/{{tier}}/evidence/{{paper}}.json",
        table=f"{PLAN.config.results}/{{tier}}/tables/{{paper}}.csv",
        sums=f"{PLAN.config.results}/{{tier}}/tables/{{paper}}.sha256",
    log:
        f"{PLAN.config.results}/{{tier}}/logs/evidence/{{paper}}.log",
    wildcard_constraints:
        tier="|".join(ATLAS.others) or "none",
        paper=r"[A-Za-z][\w-]*",
    conda:
        "../envs/report.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    # The same as of the rule `evidence`: what one has made is the other's, too.
    params:
        claims=lambda wildcards: ATLAS.graph(wildcards.tier).part_digest(
            wildcards.paper
        ),
        code=PLAN.code,
    shell:
        cyclery_at_tier("""
            evidence {wildcards.paper:q} \
                --expect {params.claims} \
                --output {output.evidence:q} \
                --table {output.table:q} \
                --log {log:q}
            """)


rule atlas:
    """Render the verdicts of all tiers, with tables and figures."""
    input:
        evidence=atlas_evidence,
        replications=lambda wildcards: ATLAS.replications(),
    output:
        html=report(
            f"{ATLAS.folder}/index.html",
            caption="../report/report.rst",
            category="Atlas",
        ),
        tex=f"{ATLAS.folder}/report.tex",
        benchmarks=directory(f"{ATLAS.folder}/benchmarks"),
        tables=directory(f"{ATLAS.folder}/tables"),
        figures=directory(f"{ATLAS.folder}/figures"),
        sums=f"{ATLAS.folder}/SHA256SUMS",
    log:
        f"{PLAN.config.results}/atlas.log",
    conda:
        "../envs/report.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=PLAN.report_code,
    shell:
        cyclery("""
            report {input.evidence:q} \
                --replication {input.replications:q} \
                --output {output.html:q} \
                --log {log:q}
            """)
