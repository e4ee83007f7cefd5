"""Training.

Needs: the manifests of the datasets, the range tests of the arms that ask for one, and the records
of the shards that hold parents. Makes: {results}/{tier}/records/{group}/{shard}.jsonl, one line for
each run. Weights and unfinished runs lie in the run store, which Snakemake does not know.
"""


rule train:
    """Train and evaluate the runs of a shard that the run store does not hold yet."""
    input:
        manifests=lambda wildcards: PLAN.manifests(wildcards.group),
        ranges=lambda wildcards: PLAN.range_files(wildcards.group, wildcards.shard),
        parents=lambda wildcards: PLAN.parent_files(wildcards.group, wildcards.shard),
    output:
        f"{RESULTS}/records/{{group}}/{{shard}}.jsonl",
    log:
        f"{RESULTS}/logs/records/{{group}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/records/{{group}}/{{shard}}.tsv"
    conda:
        "../envs/train.yaml"
    threads: lambda wildcards: PLAN.shard_threads(wildcards.group, wildcards.shard)
    resources:
        gpu=PLAN.gpus,
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        runs=lambda wildcards: PLAN.shard_digest(wildcards.group, wildcards.shard),
    shell:
        cyclery("""
            train {wildcards.group:q}/{wildcards.shard:q} \
                --expect {params.runs} \
                --workers {threads} \
                --output {output:q} \
                --log {log:q}
            """)
