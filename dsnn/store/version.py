"""The version of dsnn, which is part of what names a run."""

VERSION = "0.2.0"
