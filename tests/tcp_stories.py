"""What TCP says, by story: `>` from the client, `<` from the server; S, F, R, P and `.` for ACK; the bytes of data.

The simulated endpoint says the same (`tests/core/simulation/test_tcp.py`), and so does a kernel's
(`tests/netns/test_real_tcp.py`).
"""

HANDSHAKE = ">S <S. >."
FIRST_EXCHANGE = ">P.4 <. <P.6 >."
"""A young connection acknowledges at once."""
LATER_EXCHANGES = ">P.4 <P.6 >. >P.4 <P.6 >."
"""100 ms after the answer before. The server's ACK rides on its answer."""
QUICK_EXCHANGES = ">P.4 <. <P.6 >. >P.4 <P.6 >P.4 <P.6 >P.4 <P.6"
"""10 ms after the answer before, from the first one on: the client's ACKs ride on its questions,"""
LAST_ACK = ">."
"""and the last one comes by itself."""
BOTH_CLOSE = ">F. <F. >."
HALF_CLOSE = ">F. <. <P.8 >. <F. >."
ABORT = ">R."
REFUSED = ">S <R."

DARK_DATA_S = [0.0, 0.2, 0.4, 0.8, 1.6]
"""When data is sent that nobody acknowledges, on a network without delay: the second time is a loss probe."""
DARK_SYN_S = [0.0, 1.0, 2.0, 3.0]
SLOW_DATA_S = [0.0, 2.2]
"""The same after an opening whose first answer was lost: the second that it took counts as a round trip."""
