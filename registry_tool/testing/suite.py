"""suite.py: the conformance suite that any plugin runs: subclass it, name the plugin and the kind."""

from __future__ import annotations

from registry_tool.testing.loading import Loading
from registry_tool.testing.measuring import Measuring


class PluginSuite(Loading, Measuring):
    """Whether a plugin keeps the contract of `hookspec`, for one of its kinds. Subclass it once a kind.

    plugin: the module with the hooks, or what its entry point says (`package.module`, `package.module:object`).
    kind: one of its kinds. corpus: rows that it trains on, predicts and is evaluated on.
    unseen: labelled rows that no training on `corpus` sees, to calibrate on.
    arguments: further words of `registry train KIND`, such as ("--epochs", "2").
    evidence: the file of out-of-fold predictions that the gate measures; a kind with a gate needs it.
    without: hook -> why the plugin does not offer it; a hook that is left out needs a reason.
    optional: pointers of manifest (or sidecar) fields that may be missing or of another type, all below them too.
    deterministic: training twice gives the same bytes. promotes: the good entry clears the kind's default policy.
    heavy: names of modules, besides the usual, that must load inside hooks alone.

    The good entry is trained; `make_registry`, or the fixtures `rows` and `good_registry`, bring another. The tests of
    a hook that the plugin does not offer are left out: one skip says why. A plugin that needs an exception overrides
    that test and says why.
    """
