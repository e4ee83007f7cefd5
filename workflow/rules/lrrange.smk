"""Learning-rate range tests.

Needs: the manifests of the datasets. Makes: {results}/{tier}/lr-range/{group}.jsonl, one line for
each sweep that an arm of the group asks for with `lr: range`: its curve, its readings and bounds.
"""


rule lr_range:
    """Sweep the learning rate and read off its bounds."""
    input:
        lambda wildcards: PLAN.manifests(wildcards.group),
    output:
        f"{RESULTS}/lr-range/{{group}}.jsonl",
    log:
        f"{RESULTS}/logs/lr-range/{{group}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/lr-range/{{group}}.tsv"
    priority: 1
    conda:
        "../envs/train.yaml"
    threads: lambda wildcards: PLAN.range_threads(wildcards.group)
    resources:
        **PLAN.device_resources,
        mem_mb=lambda wildcards, threads, attempt: attempt
        * PLAN.range_megabytes(wildcards.group, threads),
        runtime=lambda wildcards, threads, attempt: attempt
        * PLAN.range_minutes(wildcards.group, threads),
    params:
        runs=lambda wildcards: PLAN.range_digest(wildcards.group),
    shell:
        cyclery("""
            lr-range {wildcards.group:q} \
                --expect {params.runs} \
                --workers {threads} \
                --output {output:q} \
                --log {log:q}
            """)
