"""The policy lab shows what becomes of every pair of releases under a policy, for a CPU that you choose."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable

import ipywidgets as widgets
import pandas as pd
from matplotlib import pyplot as plt

from vmstate_tools.analysis import cpu_history, policies_compared
from vmstate_tools.compat import POLICIES, Policy
from vmstate_tools.show import charts

CPUS = ("970fx_v3.1", "POWER5+_v2.1", "POWER7_v2.3", "POWER7+_v2.1", "POWER8_v2.0", "POWER8E_v2.1", "POWER9_v1.0")
MACHINES = ("pseries-2.1", "pseries-2.3", "pseries-2.6", "pseries-2.7")
_32_BIT = "g3beige, 32-bit"


def policy_lab(policies: Iterable[Policy] = ()) -> PolicyLab:
    """Returns a widget that compares the policies of 2016, and any `policies` of your own after them.

    Everything in it is predicted, from the words that the catalog has for each release. It needs a live kernel; without
    one the page shows the table of the first choice.
    """
    return PolicyLab(policies)


class PolicyLab(widgets.VBox):
    """The widget that `vt.policy_lab` returns; its controls are ipywidgets: Tab moves between them, arrows choose.

    `machine`, `cpu`, `direction`, `accel`, `policy` and `since` are the controls. `picture` and `summary` show the
    result, `pairs` is the frame behind it (see `analysis.policies_compared.pairs`).
    """

    def __init__(self, policies: Iterable[Policy] = ()) -> None:
        names: dict[str, Policy | str] = {name: name for name in POLICIES} | {p.name: p for p in policies}
        self.machine = widgets.Dropdown(options=[*MACHINES, _32_BIT], value="pseries-2.6", description="Machine type")
        self.cpu = widgets.Dropdown(options=CPUS, value="POWER7_v2.3", description="CPU")
        self.policy = widgets.Dropdown(options=list(names.items()), value="subset", description="Policy")
        self.accel = widgets.ToggleButtons(options=[("TCG", "tcg"), ("KVM", "kvm")], description="Accelerator")
        self.direction = widgets.ToggleButtons(options=["both", "forward", "backward"], description="Direction")
        self.since = widgets.ToggleButtons(
            options=[(f"from {policies_compared.FIXED} on", policies_compared.FIXED), ("in every release", None)],
            description="Followed",
        )
        self.picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self.summary = widgets.HTML()
        self.pairs = pd.DataFrame()
        controls = [self.machine, self.cpu, self.policy, self.accel, self.direction, self.since]
        for control in controls:
            control.style.description_width = "7em"
        self.machine.observe(self._other_machine, "value")
        for control in controls:
            control.observe(self._draw, "value")
        super().__init__([*controls, self.summary, self.picture])
        self._draw()

    def _other_machine(self, _: object) -> None:
        """Offers the CPUs that the chosen machine type takes."""
        wanted = ("7400_v2.9", "750_v3.1") if self.machine.value == _32_BIT else CPUS
        if self.cpu.options != wanted:
            self.cpu.options = wanted

    def _draw(self, _: object = None) -> None:
        """Computes the pairs of the current choice, and shows them."""
        machine, ulong = (self.machine.value.split(",")[0], 4 if self.machine.value == _32_BIT else 8)
        releases = cpu_history.releases(machine=machine)
        found = policies_compared.pairs(
            machine, [self.cpu.value], self.policy.value, self.accel.value, self.since.value, ulong, releases
        )
        if self.direction.value != "both":
            found = found[found["direction"] == self.direction.value]
        self.pairs = found
        self.summary.value = self._counts()
        if found.empty:
            self.picture.value = b""
            return
        title = f"PREDICTED: {self.cpu.value} on {self.machine.value}, {self.accel.label}, {self.policy.label}"
        with plt.ioff(), charts.style():
            figure, ax = plt.subplots(figsize=(12, 11))
            charts.pair_matrix(policies_compared.table(found), ax, title=title, legend=policies_compared.EFFECTS)
            out = io.BytesIO()
            figure.savefig(out, format="png", dpi=80)
            plt.close(figure)
        self.picture.value = out.getvalue()

    def _counts(self) -> str:
        """Returns the counts as an HTML table, and which flags the guests that are let through would lose."""
        counts = self.pairs["effect"].value_counts()
        rows = "".join(
            f"<tr><td>{charts.LOOKS[effect].letter}</td><td>{html.escape(effect)}</td><td>{counts.get(effect, 0)}</td>"
            f"<td>{html.escape(said)}</td></tr>"
            for effect, said in policies_compared.EFFECTS.items()
        )
        lost = sorted(
            {name for names in self.pairs.loc[self.pairs["effect"] == "let through", "lacks"] for name in names}
        )
        missing = f"<p>Let through without: {html.escape(', '.join(lost))}</p>" if lost else ""
        where = (
            f"{self.cpu.value} on {self.machine.value}, {self.accel.label}, {self.policy.label}, {self.direction.value}"
        )
        head = "<tr><th></th><th>effect</th><th>pairs</th><th></th></tr>"
        return f"<p>Predicted: {html.escape(where)}.</p><table>{head}{rows}</table>{missing}"

    def static_html(self) -> str:
        """Returns the current choice as HTML, for pages without a kernel."""
        return f"<details><summary>Without a running kernel</summary>{self.summary.value}</details>"

    def _ipython_display_(self) -> None:
        from IPython.display import display

        plain = f"Policy lab: {self.cpu.value} on {self.machine.value}, {self.policy.label}"
        display({"text/html": self.static_html(), "text/plain": plain}, raw=True)
        bundle = self._repr_mimebundle_()
        display(bundle[0] if isinstance(bundle, tuple) else bundle, raw=True)
