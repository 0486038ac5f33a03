"""The DaemonSet: valid by Kubernetes' own schemas, and with no more rights than are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from pretake.commands.watch import command
from tools.daemonset import CAPABILITIES, METRICS_PORT

MANIFEST = Path(__file__).parents[3] / "deploy/kubernetes/daemonset.yaml"


@pytest.fixture
def manifest() -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    return told


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_it_is_valid_and_names_no_field_that_is_not_there(
    manifest: dict[str, Any], version: str
) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)
    manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"]["caps"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_it_asks_for_few_rights(manifest: dict[str, Any]) -> None:
    pod = manifest["spec"]["template"]["spec"]
    (watch,) = pod["containers"]
    assert watch["securityContext"] == {
        "runAsUser": 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["hostPID"] is True
    assert not pod.get("hostNetwork")
    assert not pod["automountServiceAccountToken"]


def test_its_options_are_those_of_the_command(manifest: dict[str, Any]) -> None:
    template = manifest["spec"]["template"]
    subcommand, *options = template["spec"]["containers"][0]["args"]
    assert subcommand == "watch"
    # A rule that cannot be parsed ends it before it looks for rights.
    done = CliRunner().invoke(command, [*options, "--when", "nonsense"])
    assert "'nonsense' is no rule" in str(done.exception)
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(METRICS_PORT)
    assert options[options.index("--metrics-port") + 1] == str(METRICS_PORT)
