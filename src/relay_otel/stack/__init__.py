"""A user's relay.yaml and metrics.yaml in; the folder of all that runs beside their app out.

    relay-otel stack init ops       writes collector/, prometheus/, alertmanager/, grafana/, runbooks/, compose.yaml
    relay-otel stack diff ops       what an upgrade of the package would change, and what you changed
    relay-otel stack check ops      our own lints, and every validator that is on PATH

`sources.py` says where our files are, `answers.py` reads what is the user's, `render.py` makes the texts, `manifest.py`
remembers what was written, `compare.py` tells whose change is whose, `checks.py` judges. Imported by the command line
only; it needs the extra [stack].
"""
