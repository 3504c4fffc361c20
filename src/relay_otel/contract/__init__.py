"""contract/*.yaml in; everything that is generated from it out, so that a metric's name is written once.

    python -m relay_otel.contract generate [--check]
    python -m relay_otel.contract lint

`load.py` reads, `lint.py` judges, `render.py` lists what is written where. The only package that needs PyYAML
(`pip install 'relay-otel[contract]'`); the running app never imports it.
"""
