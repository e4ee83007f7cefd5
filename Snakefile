"""The graph is workflow/Snakefile, where Snakemake's catalog and `snakedeploy` look for it."""


include: "workflow/Snakefile"


# Snakemake takes no default target from a file that is included.
workflow.default_target = "all"
