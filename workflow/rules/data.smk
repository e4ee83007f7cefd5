"""Datasets.

Needs: raw files, from a package on this machine or downloaded and checked by checksum.
Makes: {data}/{dataset}.json, a small manifest with the content hash. The large file beside it is
not declared: it is re-made where it is absent, and its content hash is checked when it is read.
"""


rule prepare:
    """Write a dataset as one file of tensors, and its manifest."""
    output:
        f"{PLAN.data}/{{dataset}}.json",
    log:
        f"{PLAN.data}/{{dataset}}.log",
    conda:
        "../envs/train.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        identity=lambda wildcards: PLAN.identity(wildcards.dataset),
    shell:
        cyclery("""
            prepare {wildcards.dataset:q} \
                --output {output:q} \
                --log {log:q}
            """)
