"""Training.

Needs: the manifests of the datasets, the range tests of the arms that ask for one, and the records
of the shards that hold parents. Makes: {results}/{tier}/records/{group}/{shard}.jsonl, one line for
each run, and, only where asked for, {results}/{tier}/checkpoints/{run}.safetensors, the weights of
a parent. Weights and unfinished runs lie in the run store, which Snakemake does not know.
"""


rule checkpoint:
    """Export the final weights of a parent from the run store, training it where that lost it."""
    input:
        lambda wildcards: PLAN.checkpoint_records(wildcards.run),
    output:
        f"{RESULTS}/checkpoints/{{run}}.safetensors",
    log:
        f"{RESULTS}/logs/checkpoints/{{run}}.log",
    conda:
        "../envs/train.yaml"
    resources:
        **PLAN.device_resources,
        mem_mb=lambda wildcards, attempt: attempt
        * PLAN.checkpoint_megabytes(wildcards.run),
        runtime=lambda wildcards, attempt: attempt
        * PLAN.checkpoint_minutes(wildcards.run),
    params:
        key=lambda wildcards: PLAN.checkpoint_key(wildcards.run),
    shell:
        cyclery("""
            checkpoint {wildcards.run:q} \
                --expect {params.key} \
                --output {output:q} \
                --log {log:q}
            """)


rule checkpoints:
    """Export the weights of every parent of the selected papers."""
    input:
        lambda wildcards: PLAN.checkpoint_files(),


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
    priority: 1
    conda:
        "../envs/train.yaml"
    threads: lambda wildcards: PLAN.shard_threads(wildcards.group, wildcards.shard)
    resources:
        **PLAN.device_resources,
        mem_mb=lambda wildcards, threads, attempt: attempt
        * PLAN.shard_megabytes(wildcards.group, wildcards.shard, threads),
        runtime=lambda wildcards, threads, attempt: attempt
        * PLAN.shard_minutes(wildcards.group, wildcards.shard, threads),
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
