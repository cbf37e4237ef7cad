"""Will it load there, and if not, why: a destination, a policy, a verdict."""

from vmstate_tools.compat.destination import Destination
from vmstate_tools.compat.load import check
from vmstate_tools.compat.matrix import matrix
from vmstate_tools.compat.policy import POLICIES, Policy
from vmstate_tools.compat.verdict import Obstacle, Verdict

__all__ = ["POLICIES", "Destination", "Obstacle", "Policy", "Verdict", "check", "matrix"]
