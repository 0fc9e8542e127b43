"""The one tree of errors that Headrace raises on purpose.

    HeadraceError                  what happened, the value seen, what to do
    ├── SettingsError              a setting is missing or wrong (all faults at once)
    ├── SchemaError                a schema file, lock or registry disagrees
    │   └── IncompatibleSchemaError  a change would break readers or writers
    ├── RecordError                bytes that are not the record they claim to be
    ├── SourceError                an input file is missing, unreadable or lacks a column
    ├── ModelError                 a model folder is corrupt, foreign or out of contract
    ├── KafkaError                 the cluster refused, or did not answer in time
    │   ├── TopicDriftError        a topic exists with another declaration
    │   └── DeliveryError          records were not acknowledged
    ├── WarehouseError             ClickHouse refuses, is away, or belongs to another process
    │   └── WarehouseAwayError     it does not answer; the same may work later
    ├── ClusterError               the local Kafka cannot be installed, started or stopped
    └── WorkerError                the worker must end: fenced, stalled or broken state
        ├── FencedError            it may have lost its partitions; it must not write
        └── StalledError           it has lag and makes no progress

`headrace` prints the message of any of them as one line and exits with `exit_code`.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of every error that a user may see; its message is one clear sentence or two."""

    exit_code = 1


class SettingsError(HeadraceError):
    """A setting is missing or wrong; the message lists every fault."""

    exit_code = 2


class SchemaError(HeadraceError):
    """A schema file, the id lock or the registry disagrees with another."""


class IncompatibleSchemaError(SchemaError):
    """A schema change would break a reader or a writer of an earlier version."""


class RecordError(HeadraceError):
    """Bytes that are not the record they claim to be."""


class SourceError(HeadraceError):
    """An input file is missing, unreadable, or lacks a column."""

    exit_code = 2


class ModelError(HeadraceError):
    """A model folder is corrupt, foreign, or out of contract."""


class KafkaError(HeadraceError):
    """The cluster refused, or did not answer in time."""


class TopicDriftError(KafkaError):
    """A topic exists with another declaration than ours."""


class DeliveryError(KafkaError):
    """Records that were produced were not acknowledged."""


class WarehouseError(HeadraceError):
    """ClickHouse refused, or its folder belongs to another process."""


class WarehouseAwayError(WarehouseError):
    """ClickHouse does not answer; trying again later may work."""


class ClusterError(HeadraceError):
    """The local Kafka cannot be installed, started, or stopped."""


class WorkerError(HeadraceError):
    """The worker must end so that a supervisor can start it again from its last commit."""


class FencedError(WorkerError):
    """The worker may have lost its partitions to another and must not write any more."""


class StalledError(WorkerError):
    """The worker has lag and makes no progress."""
