"""The report.

Needs: the evidence of every selected paper; what other tiers have of them stands in the benchmark
tables too. Makes: {results}/{tier}/report/index.html (one file, opens from disk), report.tex with
its benchmark tables, tables and figures, SHA256SUMS; report.pdf beside them where a LaTeX is
installed. Of some of the papers it is {results}/{tier}/report-{papers}/. Snakemake's own report
takes page, tables and figures.
"""


rule render:
    """Render verdicts, tables and figures."""
    input:
        evidence=PLAN.evidence_files(),
    output:
        html=report(
            f"{PLAN.report}/index.html",
            caption="../report/report.rst",
            category="Report",
        ),
        tex=f"{PLAN.report}/report.tex",
        benchmarks=report(
            directory(f"{PLAN.report}/benchmarks"),
            caption="../report/benchmarks.rst",
            category="Benchmark tables",
            patterns=["{name}.tex"],
            labels=benchmark_labels,
        ),
        tables=report(
            directory(f"{PLAN.report}/tables"),
            caption="../report/tables.rst",
            category="Tables",
            patterns=["{name}.tex"],
            labels={"table": "{name}"},
        ),
        figures=report(
            directory(f"{PLAN.report}/figures"),
            caption="../report/figures.rst",
            category="Figures",
            patterns=["{name}.pdf"],
            labels={"figure": "{name}"},
        ),
        sums=f"{PLAN.report}/SHA256SUMS",
    log:
        f"{RESULTS}/logs/{Path(PLAN.report).name}.log",
    conda:
        "../envs/report.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=PLAN.report_code,
        # No input: the atlas has a rule that makes it, which a report does not ask for.
        also=PLAN.other_evidence(),
        seen=PLAN.other_sums(),
    shell:
        cyclery("""
            report {input.evidence:q} \
                --also {params.also:q} \
                --output {output.html:q} \
                --log {log:q}
            """)


rule report:
    """The report, and whatever is lost or damaged of all that it is made from."""
    input:
        rules.render.output,
        due(),
