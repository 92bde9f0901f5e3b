"""Security: who tries to get in, who is refused, what the hosts' doors say, and how long certificates are good."""

from files.grafana import limits
from files.grafana.board import HOST, SITE, Board, Row
from files.grafana.panels import COUNT, PER_SECOND, SECONDS, SHARE, Column, lines, listing, now, over_time
from files.grafana.queries import Lines, Prom

REFUSED = 'event.action:"log-in" AND event.outcome:failure AND host.name:$host'
SUSPICIOUS = 'event.dataset:"bank.fraud" AND host.name:$host'
DENIED = 'event.action:("access-check" OR "csrf-check" OR "rate-limit" OR "slow-down") AND host.name:$host'
NOBODY = "Nobody in this time."
NO_FRAUD = "No order looked like fraud in this time."

BOARD = Board(
    "security",
    "Security",
    "Log-ins, locks and refusals at the bank, log-ins at the hosts, and how long certificates are good.",
    (
        Row(
            "Now",
            (
                now(
                    "Failed log-ins",
                    "Each second over 5 minutes. Above 0.5, and five times as many as succeed, is a P2.",
                    Prom('sum(rate(bank_logins_total{outcome="failure", site=~"$site"}[5m]))'),
                    unit=PER_SECOND,
                    decimals=2,
                    steps=limits.of_alert("LoginFailureSpike"),
                ),
                now(
                    "Share of log-ins that failed",
                    "Over an hour. People mistype; programs that guess fail nearly always.",
                    Prom(
                        'sum(increase(bank_logins_total{outcome="failure", site=~"$site"}[1h])) '
                        '/ (sum(increase(bank_logins_total{site=~"$site"}[1h])) > 0)'
                    ),
                    unit=SHARE,
                    decimals=0,
                    steps=limits.above(0.5, limits.WARNING),
                    empty="Nobody tried to log in for an hour.",
                ),
                now(
                    "Log-ins slowed down",
                    "People within an hour whose log-ins began to be slowed down after failures.",
                    Prom('sum(increase(bank_account_locks_total{site=~"$site"}[1h]))'),
                    decimals=0,
                    steps=limits.above(1, limits.NOTICE),
                ),
                now(
                    "Too many attempts",
                    "Requests within an hour that were refused because there were too many before.",
                    Prom('sum(increase(bank_rate_limited_total{site=~"$site"}[1h]))'),
                    decimals=0,
                    steps=limits.above(1, limits.NOTICE),
                ),
                now(
                    "Certificate that ends first",
                    "Time until it ends. Below 20 days is a P3, below 7 a P2.",
                    Prom('min(probe_ssl_earliest_cert_expiry{site=~"$site"}) - time()'),
                    unit=SECONDS,
                    steps=limits.CERTIFICATE,
                ),
                now(
                    "Firewalls",
                    "Share of the hosts whose firewall runs.",
                    Prom('avg(node_systemd_unit_state{name="firewalld.service", state="active", site=~"$site"})'),
                    unit=SHARE,
                    steps=limits.ALIVE,
                ),
            ),
        ),
        Row(
            "Log-ins at the bank",
            (
                over_time(
                    "Log-ins by outcome",
                    "Log-ins each second.",
                    Prom('sum by (outcome) (rate(bank_logins_total{site=~"$site"}[$__rate_interval]))', "{{outcome}}"),
                    unit=PER_SECOND,
                    width=8,
                    colours={"success": limits.GOOD, "failure": limits.WARNING, "error": limits.BAD},
                ),
                over_time(
                    "Failed log-ins by factor",
                    "Each second: at the password, at the code, at a recovery code.",
                    Prom(
                        'sum by (factor) (rate(bank_logins_total{outcome="failure", site=~"$site"}[$__rate_interval]))',
                        "{{factor}}",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Attempts refused by a limit",
                    "Within an hour, by what was limited.",
                    Prom('sum by (limit) (increase(bank_rate_limited_total{site=~"$site"}[1h]))', "{{limit}}"),
                    width=8,
                ),
                over_time(
                    "Security events",
                    "Events at the bank by kind, from its log.",
                    Lines('event.dataset:"bank.user_behavior" AND host.name:$host', by="event.action"),
                    stacked=True,
                    bars=True,
                    empty=NOBODY,
                ),
                over_time(
                    "Refused access",
                    "Requests refused for want of rights, of a form's token, or because there were too many.",
                    Lines(DENIED, by="event.action"),
                    stacked=True,
                    bars=True,
                    empty="Nobody was refused in this time.",
                ),
                listing(
                    "Addresses with most refused log-ins",
                    "Where refused log-ins came from.",
                    {"source.ip": "Address"},
                    Column("Refused", Lines(REFUSED, by="source.ip"), COUNT),
                    width=8,
                    sort="Refused",
                    empty=NOBODY,
                ),
                listing(
                    "Refused at",
                    "At which step log-ins were refused.",
                    {"event.reason": "Step"},
                    Column("Refused", Lines(REFUSED, by="event.reason"), COUNT),
                    width=8,
                    sort="Refused",
                    empty=NOBODY,
                ),
                listing(
                    "Answers of 401 and 403",
                    "Paths whose answers were refusals, from the log of the load balancers.",
                    {"url.path": "Path"},
                    Column(
                        "Answers",
                        Lines(
                            'event.dataset:"haproxy.access" AND http.response.status_code:(401 OR 403) AND '
                            "host.name:$host",
                            by="url.path",
                        ),
                        COUNT,
                    ),
                    width=8,
                    sort="Answers",
                    empty=NOBODY,
                ),
                lines(
                    "Security events as they come in",
                    "Of the bank and of its audit trail, the latest first.",
                    Lines('(event.dataset:"bank.user_behavior" OR event.dataset:"bank.audit") AND host.name:$host'),
                    height=9,
                    empty=NOBODY,
                ),
            ),
        ),
        Row(
            "Fraud",
            (
                over_time(
                    "Suspicious orders",
                    "Flagged or held within 10 minutes. Above 10, and five times the week's usual, is a P2.",
                    Prom(
                        'sum by (decision) (increase(bank_fraud_decisions_total{decision=~"flagged|held", '
                        'site=~"$site"}[10m]))',
                        "{{decision}}",
                    ),
                    width=8,
                    colours={"flagged": limits.WARNING, "held": limits.BAD},
                    steps=limits.of_alert("FraudSpike"),
                ),
                listing(
                    "Why orders were suspicious",
                    "Indicators of the orders that were flagged or held.",
                    {"bank.fraud.indicators": "Indicator"},
                    Column("Orders", Lines(SUSPICIOUS, by="bank.fraud.indicators"), COUNT),
                    width=8,
                    sort="Orders",
                    empty=NO_FRAUD,
                ),
                listing(
                    "Addresses of suspicious orders",
                    "Where orders that were flagged or held came from.",
                    {"source.ip": "Address"},
                    Column("Orders", Lines(SUSPICIOUS, by="source.ip"), COUNT),
                    width=8,
                    sort="Orders",
                    empty=NO_FRAUD,
                ),
            ),
        ),
        Row(
            "Hosts and certificates",
            (
                over_time(
                    "Log-ins at hosts and commands as root",
                    "Lines of sshd, sudo and su in the journals of the hosts.",
                    Lines("syslog.identifier:(sshd OR sudo OR su) AND host.name:$host", by="syslog.identifier"),
                    stacked=True,
                    bars=True,
                    empty=NOBODY,
                ),
                over_time(
                    "Packets that a firewall refused",
                    "Lines of the kernel about them; firewalld writes them where LogDenied is set.",
                    Lines("systemd.transport:kernel AND message:(REJECT OR DROP) AND host.name:$host", by="host.name"),
                    stacked=True,
                    bars=True,
                    empty="No firewall wrote of a packet that it refused.",
                ),
                listing(
                    "Certificates",
                    "Time until each certificate ends, as its clients see it. Renewed when less than 60 days are left.",
                    {"probe": "Service", "instance": "Host"},
                    Column(
                        "Ends in",
                        Prom('min by (probe, instance) (probe_ssl_earliest_cert_expiry{site=~"$site"} - time())'),
                        SECONDS,
                        limits.CERTIFICATE,
                    ),
                    width=12,
                ),
                listing(
                    "Firewalls and clocks",
                    "Services without which a host is open, or its logs cannot be trusted.",
                    {"instance": "Host", "name": "Unit"},
                    Column(
                        "State",
                        Prom(
                            "max by (instance, name) (node_systemd_unit_state"
                            '{name=~"(firewalld|chronyd|sshd).service", state="active", site=~"$site"})'
                        ),
                        meanings={"1": ("active", limits.GOOD), "0": ("not running", limits.BAD)},
                    ),
                    width=12,
                ),
            ),
        ),
    ),
    variables=(SITE, HOST),
    runbooks=("bank.md", "blackbox.md"),
    since="now-6h",
)
