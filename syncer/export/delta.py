"""The Delta table, with delta-rs. Implements `appender.Table`.

Tables that this module creates have two properties: `syncer.model`, and `syncer.topic` with the id of the topic. The
name of a transaction contains this id, too: another topic begins with no transaction.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import pyarrow
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.schema import Field, PrimitiveType, Schema

from syncer.errors import Fatal, Retry
from syncer.export.columns import OWN, Column, Rows
from syncer.export.location import Location
from syncer.export.pending import Pending

_ARROW = {
    "short": pyarrow.int16(),
    "integer": pyarrow.int32(),
    "long": pyarrow.int64(),
    "double": pyarrow.float64(),
    "decimal(38,18)": pyarrow.decimal128(38, 18),
    "boolean": pyarrow.bool_(),
    "string": pyarrow.string(),
    "date": pyarrow.date32(),
    "timestamp": pyarrow.timestamp("us", tz="UTC"),
    "timestamp_ntz": pyarrow.timestamp("us"),
}
_MODEL, _TOPIC = "syncer.model", "syncer.topic"
_TEXT = "syncer.text"
"""Metadata of a `string` column: `json` if it holds JSON text, else `plain`. For Delta, both are the same type."""
_EXPIRY = "delta.setTransactionRetentionDuration"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REFUSED = re.compile(r"lacked (the necessary privileges|valid authentication credentials)")
_ANSWER = re.compile(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>")


class DeltaLog:
    """The table of one read model and one topic. For one thread. columns: of the document's fields.

    Raises Fatal if the table belongs to something else, Retry if the store is unreachable.
    """

    def __init__(
        self, location: Location, columns: Sequence[Column], *, model: str, topic_id: str, new_topic: bool = False
    ) -> None:
        self._location, self._columns = location, columns
        self._model, self._topic_id, self._new_topic = model, topic_id, new_topic
        self._written: list[tuple[str, pyarrow.DataType]] = []
        """The columns of the rows that are appended."""
        self._table: DeltaTable

    # -- opening --------------------------------------------------------------------------------------

    def find(self) -> bool:
        """Opens the table if it exists, and checks that it fits. Changes nothing. Returns whether it exists."""
        with self._errors("cannot open the table"):
            try:  # DeltaTable.is_deltatable would stop all threads of the process until the store answers
                self._table = DeltaTable(self._location.uri, storage_options=self._location.options)
            except TableNotFoundError:
                return False
            self._check()
        return True

    def open(self) -> None:
        """Creates the table if it is missing, adds the columns that it lacks, and opens it."""
        if not self.find():
            self._create()
        self._complete()

    def probe(self) -> None:
        """Writes an empty file to the object store and removes it.

        Raises Fatal if the store refuses it, and Retry if the store is unreachable.
        """
        what, name = "cannot write to the object store", ".syncer-probe"
        with self._errors(what):
            store = DeltaStorageHandler(self._location.uri, self._location.options)
            try:
                store.open_output_stream(name).close()
            except OSError as error:
                if isinstance(error, FileNotFoundError):
                    hint = "check the URL, and create the bucket if it is missing"
                elif _REFUSED.search(str(error)):  # delta-rs has no exception of its own for this
                    hint = "check the credentials in the environment, such as AWS_ACCESS_KEY_ID, and their rights"
                else:
                    raise
                raise Fatal(what, where=self._location.uri, why=_why(error), hint=hint) from error
            with suppress(FileNotFoundError):  # another export, which starts at the same time, has removed it
                store.delete_file(name)

    def _create(self) -> None:
        schema = Schema([_field(one) for one in (*OWN, *self._columns)])
        text = f"Documents of the read model {self._model}, exported by syncer"
        with self._errors("cannot create the table"):
            try:
                self._table = DeltaTable.create(
                    self._location.uri,
                    schema,
                    mode="error",
                    name=self._model,
                    description=text,
                    storage_options=self._location.options,
                )
            except DeltaError:
                if not self.find():
                    raise  # otherwise another process created it at the same time

    def _check(self) -> None:
        """Raises Fatal if the table is not one of this export."""
        have, found = self._have(), self._table.metadata().configuration
        if any(have.get(one.name) != one.type for one in OWN):
            raise self._refused("the table was not created by syncer export", "it lacks the columns of the syncer")
        model, topic = found.get(_MODEL, self._model), found.get(_TOPIC, self._topic_id)
        if model != self._model:
            raise self._refused(f"the table belongs to the read model {model}", "")
        if topic != self._topic_id and not self._new_topic:
            raise self._refused(
                "the topic was deleted and created again since the last export",
                f"the table has records of the topic with id {topic}, the topic has id {self._topic_id}."
                " Deletes that were not exported are lost, so the table could show documents that do not exist",
                "export to another path; or add --new-topic to append the records of the new topic",
            )
        if _EXPIRY in found:
            raise self._refused(
                f"the table has the property {_EXPIRY}",
                "Delta may delete the stored offsets, and records would be appended twice",
                f"ALTER TABLE … UNSET TBLPROPERTIES ('{_EXPIRY}')",
            )
        texts = self._texts()
        for one in self._columns:
            had, type = have.get(one.name, one.type), one.type
            if had == type and texts.get(one.name, _text(one)) != _text(one):
                had, type = f"{had} ({texts[one.name]})", f"{type} ({_text(one)})"
            if had != type:
                raise self._refused(
                    f"the column {one.name} has the type {had}, and the field has the type {type}",
                    "a column of a Delta table keeps its type",
                    "export to another path, or give the field another name in the declaration",
                )

    def _refused(self, what: str, why: str, hint: str = "choose another path") -> Fatal:
        return Fatal(what, where=self._location.uri, why=why, hint=hint)

    def _have(self) -> dict[str, str]:
        return {
            one.name: one.type.type if isinstance(one.type, PrimitiveType) else str(one.type)
            for one in self._table.schema().fields
        }

    def _texts(self) -> dict[str, str]:
        """Returns the kind of text in each column that was created with one. See `_TEXT`."""
        fields = self._table.schema().fields
        return {one.name: str(one.metadata[_TEXT]) for one in fields if _TEXT in one.metadata}

    def _complete(self) -> None:
        """Records the topic in the table, and adds columns of new fields. Repeats if other processes commit."""
        while True:
            with self._errors("cannot change the table"):
                self._check()
                try:
                    if self._alter():
                        break
                except CommitFailedError as error:
                    before, after = self._table.version(), self.load()
                    if before == after:
                        raise Retry("cannot change the table", where=self._location.uri, why=_why(error)) from error
        have = self._have()
        own = {one.name for one in OWN}
        texts = {one.name: _text(one) for one in self._columns} | self._texts()
        self._columns = [
            Column(name, type, texts.get(name) == "json")
            for name, type in have.items()
            if name not in own and type in _ARROW
        ]
        self._written = [(name, _ARROW[type]) for name, type in have.items() if type in _ARROW]

    def _alter(self) -> bool:
        """Changes one thing that the table lacks. Returns whether nothing was missing."""
        once = CommitProperties(max_commit_retries=0)
        have, wanted = self._have(), {_MODEL: self._model, _TOPIC: self._topic_id}
        if wanted.items() - self._table.metadata().configuration.items():
            self._table.alter.set_table_properties(wanted, raise_if_not_exists=False, commit_properties=once)
            return False
        missing = [one for one in self._columns if one.name not in have]
        if missing:
            self._table.alter.add_columns(list(map(_field, missing)), commit_properties=once)
            return False
        return True

    # -- the log ----------------------------------------------------------------------------------------

    def load(self) -> int:
        """See `appender.Table.load`."""
        with self._errors("cannot read the log of the table"):
            self._table.update_incremental()
            return self._table.version()

    def next_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        """See `appender.Table.next_offsets`."""
        with self._errors("cannot read the log of the table"):
            found = {number: self._table.transaction_version(self._transaction(number)) for number in partitions}
        return {number: offset for number, offset in found.items() if offset is not None}

    def append(self, records: Pending, next_offsets: Mapping[int, int]) -> bool:
        """See `appender.Table.append`. The files of a failed append stay behind; VACUUM removes them."""
        transactions = [Transaction(self._transaction(number), offset) for number, offset in next_offsets.items()]
        before = self._table.version()
        with self._errors("cannot append to the table"):
            try:
                write_deltalake(
                    self._table,
                    self._rows(records),
                    mode="append",
                    schema_mode="merge",  # another process may have added columns
                    commit_properties=CommitProperties(app_transactions=transactions, max_commit_retries=0),
                )
            except CommitFailedError as error:
                if self.load() == before:
                    raise Retry("cannot append to the table", where=self._location.uri, why=_why(error)) from error
                return False
        return True

    def _rows(self, records: Pending) -> pyarrow.Table:
        rows = Rows(self._columns, self._topic_id)
        for write in records:
            rows.add(write)
        values = rows.values()
        arrays = [pyarrow.array(values[name], type) for name, type in self._written]
        return pyarrow.table(arrays, schema=pyarrow.schema(self._written))

    def _transaction(self, partition: int) -> str:
        return f"syncer:{self._topic_id}:{partition}"

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turns errors of delta-rs into Retry."""
        try:
            yield
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            raise Retry(what, where=self._location.uri, why=_why(error), hint=_hint(self._location)) from error


def _text(column: Column) -> str:
    return "json" if column.json else "plain"


def _field(column: Column) -> Field:
    metadata = {_TEXT: _text(column)} if column.type == "string" else None
    return Field(column.name, PrimitiveType(column.type), nullable=True, metadata=metadata)


def _why(error: Exception) -> str:
    """Returns the text of an error as one line, without the colours that delta-rs adds.

    Of an answer in XML, as S3 sends, only the code and the message are kept. The rest repeats the request.
    """
    text = " ".join(_COLOUR.sub("", str(error)).replace("↳", ":").split())
    before, start, answer = text.partition("<?xml")
    if start and (found := _ANSWER.search(answer)):
        text = before + ": ".join(found.groups())
    return text[:500]


def _hint(location: Location) -> str:
    if location.folder is not None:
        return f"check the disk of {location.folder}"
    return "check the URL and the credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL"
