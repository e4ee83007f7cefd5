"""The report.

Needs: the evidence of every selected paper. Makes: {results}/{tier}/report/index.html (one file,
opens from disk), report.tex with its tables and figures; report.pdf beside them where a LaTeX is
installed. Snakemake's own report takes page, tables and figures.
"""


rule report:
    """Render verdicts, tables and figures."""
    input:
        PLAN.evidence_files(),
    output:
        html=report(
            f"{RESULTS}/report/index.html",
            caption="../report/report.rst",
            category="Report",
        ),
        tex=f"{RESULTS}/report/report.tex",
        tables=report(
            directory(f"{RESULTS}/report/tables"),
            caption="../report/tables.rst",
            category="Tables",
            patterns=["{name}.tex"],
            labels={"table": "{name}"},
        ),
        figures=report(
            directory(f"{RESULTS}/report/figures"),
            caption="../report/figures.rst",
            category="Figures",
            patterns=["{name}.pdf"],
            labels={"figure": "{name}"},
        ),
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../envs/report.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=PLAN.code,
    shell:
        cyclery("""
            report {input:q} \
                --output {output.html:q} \
                --log {log:q}
            """)
