"""Which file translates which DNS provider. Only the one that is asked for is imported: one of them is an SDK."""

from __future__ import annotations

from providers.dns.base import DnsZone
from stagely.settings import Settings

NAMES = ("route53", "digitalocean", "hetzner")


def load(settings: Settings) -> DnsZone:
    """A fresh zone; the caller closes it. Raises RuntimeError that names the setting that is missing or wrong."""
    zone = settings.dns_zone or settings.certificate_domain
    if settings.dns_provider == "route53":
        from providers.dns import route53

        return route53.Route53Zone(zone, settings.dns_api_url)
    if settings.dns_provider == "digitalocean":
        from providers.dns import digitalocean

        return digitalocean.DigitalOceanZone(zone, _token(settings), settings.dns_api_url or digitalocean.URL)
    if settings.dns_provider == "hetzner":
        from providers.dns import hetzner

        return hetzner.HetznerZone(zone, _token(settings), settings.dns_api_url or hetzner.URL)
    raise RuntimeError(f"STAGELY_DNS_PROVIDER is {settings.dns_provider!r} and must be one of {', '.join(NAMES)}")


def _token(settings: Settings) -> str:
    return settings.secret(settings.dns_token_file, "dns_token_file")
