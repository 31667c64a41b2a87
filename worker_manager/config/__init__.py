"""Configuration: one frozen Settings value from file, environment and flags, each part with its origin.

yaml_file.py   text → plain data and the line of every part; refuses what a configuration needs not
schema.py      what a pools.yaml may say, and what each part means
flags.py       the global options, CodaLab's among them, and the place of each in the schema
layers.py      defaults < file < environment < flags, merged into one tree with origins
resolve.py     the whole way, pure: (flags, environment, file) → Settings, or every mistake at once
settings.py    the result
"""
