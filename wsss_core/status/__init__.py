"""What state a run is in, and why a step would run again; and dropping what a finished run does not need.

The rooms: `state` reads a run's folder, `reasons` compares settings files with what the configuration would write now,
`text` puts both into words, and `cleaning` drops files. All of it is known without Snakemake; what it alone knows is
asked for by `wsss_core.workflow`.
"""
