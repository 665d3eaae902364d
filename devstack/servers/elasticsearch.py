"""Runs Elasticsearch as one node, without security and without the optional modules.

Maven offers only this build. It lacks `GET /` (405), `_delete_by_query`, `_reindex`, `_update_by_query`, painless,
some analyzers and some field types. The syncer needs none of them.
"""

import shutil
from pathlib import Path

from devstack.ports import HOST
from devstack.servers.base import Server, get_json
from devstack.system import java_options


class Elasticsearch(Server):
    """Describes a single-node cluster."""

    name = "elasticsearch"
    port_names = ("elasticsearch", "elasticsearch-transport")

    def prepare(self) -> None:
        """Writes the configuration folder. It starts as a copy of the folder in the distribution."""
        self.make_folder()
        home = self.site.downloads.elasticsearch
        config = self.folder / "config"
        if not config.exists():
            shutil.copytree(home / "config", config)
        for folder in (self.folder / "tmp", config):
            folder.mkdir(exist_ok=True)
            for path in (folder, *folder.rglob("*")):
                self.own(path)
        settings = {
            "cluster.name": "devstack",
            "node.name": "devstack",
            "discovery.type": "single-node",
            "network.host": HOST,
            "http.port": self.port,
            "transport.port": self.site.ports["elasticsearch-transport"],
            "path.data": self.folder / "data",
            "path.logs": self.folder / "logs",
            "xpack.security.enabled": "false",
            # otherwise a nearly full disk makes every index read-only
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        self.write("config/elasticsearch.yml", "".join(f"{key}: {value}\n" for key, value in settings.items()))

    def env(self) -> dict[str, str]:
        """Returns the environment: paths and heap."""
        return super().env() | {
            "ES_JAVA_HOME": str(self.site.java.parent.parent),
            "ES_JAVA_OPTS": " ".join([f"-Xms{self.heap()}", f"-Xmx{self.heap()}", *java_options()]),
            "ES_PATH_CONF": str(self.folder / "config"),
            "ES_TMPDIR": str(self.folder / "tmp"),
        }

    def command(self) -> list[str | Path]:
        """Returns the command of the launcher. It starts the server as its child and forwards SIGTERM."""
        return [self.site.downloads.elasticsearch / "bin" / "elasticsearch"]

    def ready(self) -> bool:
        """Returns whether the cluster has a master and all primary shards are active."""
        health = get_json(f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=2s")
        return health["status"] in ("yellow", "green")

    def version(self) -> str:
        """Reads the version from the node info, because this build has no `GET /`."""
        nodes = get_json(f"{self.url}/_nodes/_local/_none?filter_path=nodes.*.version")
        return str(next(iter(nodes["nodes"].values()))["version"])
