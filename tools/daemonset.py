"""Makes ``deploy/kubernetes/daemonset.yaml``: a watch on each node, with few capabilities.

``python -m tools.docs`` writes the file. What it says of capabilities is what
``tests/go/test_least_privilege.py`` runs with.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["CAPABILITIES", "METRICS_PORT", "daemonset"]

CAPABILITIES = ("BPF", "PERFMON", "SYS_PTRACE", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH")
METRICS_PORT = 9110
_DUMPS = "/var/lib/pretake"
_HEAD = """\
# Made by `make docs` from tools/daemonset.py; edit that instead.
#
# Build the image (deploy/Dockerfile), and name it below. The watch finds every Go program of the
# node; with --name 'api-*' besides, those alone that are called so. Capabilities:
#   BPF, PERFMON        load and attach the BPF programs
#   SYS_PTRACE          read which files other users' processes have mapped
#   CHECKPOINT_RESTORE  open these files by /proc/PID/map_files: another container's are not to be
#                       had by name
#   DAC_READ_SEARCH     look into that folder of a process of another user
# It is user 0 because Kubernetes gives capabilities to no other one. When the probes are in place
# the watch has none of them any more; a helper process keeps the last three.
"""


def _made() -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "pretake"}
    watch = {
        "name": "watch",
        "image": "pretake:0.1.0",
        "args": [
            *("watch", "--go", "-o", f"{_DUMPS}/dumps"),
            *("--when", "lost_p > 20 % for 3 s", "--when", "stw_ns > 50 ms"),
            *("--metrics-port", str(METRICS_PORT)),
        ],
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "securityContext": {
            "runAsUser": 0,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {
            "requests": {"cpu": "100m", "memory": "300Mi"},
            "limits": {"memory": "600Mi"},
        },
        "volumeMounts": [
            {"name": "dumps", "mountPath": _DUMPS},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "pretake", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(METRICS_PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": {
                    "hostPID": True,
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 60,
                    "containers": [watch],
                    "volumes": [
                        {
                            "name": "dumps",
                            "hostPath": {"path": _DUMPS, "type": "DirectoryOrCreate"},
                        },
                        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                    ],
                },
            },
        },
    }


def daemonset() -> str:
    """The manifest, as ``kubectl apply -f`` reads it."""
    return _HEAD + "\n".join(_yaml(_made())) + "\n"


def _yaml(value: object, indent: str = "") -> list[str]:
    """Lists and mappings in blocks; JSON's strings and numbers are YAML's."""
    if isinstance(value, dict) and value:
        lines = []
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                deeper = indent + "  "
                lines += [f"{indent}{key}:", *_yaml(inner, deeper)]
            else:
                lines.append(f"{indent}{key}: {json.dumps(inner)}")
        return lines
    if isinstance(value, list):
        lines = []
        for inner in value:
            first, *rest = _yaml(inner, indent + "  ")
            lines += [f"{indent}- {first.lstrip()}", *rest]
        return lines
    return [f"{indent}{json.dumps(value)}"]
