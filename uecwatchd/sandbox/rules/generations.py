"""The rules of each generation that the cloud can play, as one frozen row.

This table is the cloud's own, and not the client's table of dialects: two tables written apart can disagree,
one cannot.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from uecwatchd.sandbox.rules.ec2 import EC2_RULES, Ec2Rules
from uecwatchd.sandbox.rules.eucarc import EUCARCS
from uecwatchd.sandbox.rules.http import HTTP_RULES, HttpRules
from uecwatchd.sandbox.rules.s3 import S3_RULES, S3Rules


@dataclass(frozen=True, slots=True)
class GenerationRules:
    """One generation: the rules of its two halves, its HTTP, and the credentials that it hands out."""

    ec2: Ec2Rules
    s3: S3Rules
    http: HttpRules
    eucarc: str  # a template of `eucarc`
    parameters: bool  # whether there is a parameter store


RULES: Mapping[str, GenerationRules] = {
    name: GenerationRules(EC2_RULES[name], S3_RULES[name], HTTP_RULES[name], EUCARCS[name], name == "aws")
    for name in S3_RULES
}
