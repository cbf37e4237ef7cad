"""`slirp`: user-mode networking, versions 1 to 4.

Facts: QEMU's slirp/slirp.c up to 3.1 (`slirp_state_save`), libslirp's state.c from 4.0 on. Version 2 added ip_id, 3 the
DHCP clients, 4 (2.6) the address family of a socket. Only sockets of `guestfwd` rules are sent, one after another, each
behind a byte that is not 0.
"""

from __future__ import annotations

from typing import Any

import construct as c

from vmstate_tools.errors import StreamError
from vmstate_tools.format.sections.leaves import S16, S32, U8, U16, U32, Indexed, Payload, Raw, Step, many, when

_VERSIONS = range(1, 5)
_CLIENTS = 16
_AF_INET = 2


def _version(context: Any, payload: Payload) -> None:
    if context._params.version_id not in _VERSIONS:
        raise StreamError(f"slirp state version {context._params.version_id}", offset=payload.offset, expected="1 to 4")


def _host(name: str) -> c.Construct:
    """Returns the format of an address; of another family than IPv4 none is sent."""
    return name / c.If(
        c.this._params.version_id >= 4,
        c.Struct("ss_family" / U16, *when(c.this.ss_family == _AF_INET, "sin_addr" / U32, "sin_port" / U16)),
    )


def _buffer(name: str) -> c.Construct:
    return name / c.Struct(
        "sb_cc" / U32, "sb_datalen" / U32, "woff" / U32, "roff" / U32, "sb_data" / Raw(c.this.sb_datalen)
    )


TCP = c.Struct(
    "t_state" / S16,
    *(f"t_timer[{i}]" / S16 for i in range(4)),
    "t_rxtshift" / S16,
    "t_rxtcur" / S16,
    "t_dupacks" / S16,
    "t_maxseg" / U16,
    "t_force" / U8,
    "t_flags" / U16,
    *(name / U32 for name in ("snd_una", "snd_nxt", "snd_up", "snd_wl1", "snd_wl2", "iss", "snd_wnd", "rcv_wnd")),
    *(name / U32 for name in ("rcv_nxt", "rcv_up", "irs", "rcv_adv", "snd_max", "snd_cwnd", "snd_ssthresh")),
    "t_idle" / S16,
    "t_rtt" / S16,
    "t_rtseq" / U32,
    "t_srtt" / S16,
    "t_rttvar" / S16,
    "t_rttmin" / U16,
    "max_sndwnd" / U32,
    "t_oobflags" / U8,
    "t_iobc" / U8,
    "t_softerror" / S16,
    *(name / U8 for name in ("snd_scale", "rcv_scale", "request_r_scale", "requested_s_scale")),
    "ts_recent" / U32,
    "ts_recent_age" / U32,
    "last_ack_sent" / U32,
)
"""`struct tcpcb`."""

SLIRP = c.Struct(
    Step(_version),
    "socket"
    / many(
        lambda socket: not socket.present,
        "present" / U8,
        *when(
            c.this.present != 0,
            "so_urgc" / U32,
            *when(
                c.this._params.version_id < 4,
                "so_faddr" / U32,
                "so_laddr" / U32,
                "so_fport" / U16,
                "so_lport" / U16,
            ),
            _host("fhost"),
            _host("lhost"),
            "so_iptos" / U8,
            "so_emu" / U8,
            "so_type" / U8,
            "so_state" / S32,
            _buffer("so_rcv"),
            _buffer("so_snd"),
            "so_tcpcb" / TCP,
        ),
    ),
    "ip_id" / c.If(c.this._params.version_id >= 2, U16),
    "bootp_clients"
    / c.If(
        c.this._params.version_id >= 3,
        c.Array(_CLIENTS, Indexed(c.Struct("allocated" / U16, "macaddr" / Raw(6)))),
    ),
)
