import pytest

from mlops_assets.core.sign_on import SignOn, sign_on_variables

VARIABLES = {
    "MLOPS_OIDC_ISSUER": "https://login.example.org/realms/ml",
    "MLOPS_OIDC_CLIENT_ID": "mlops",
    "MLOPS_OIDC_CLIENT_SECRET": "hidden",
    "MLOPS_OIDC_ROLE_CLAIM": "roles",
    "MLOPS_OIDC_VIEWERS": "staff, data science",
    "MLOPS_OIDC_OPERATORS": "ml engineers",
    "MLOPS_OIDC_SCOPES": "openid groups",
    "MLOPS_OIDC_SESSION_HOURS": "8",
}


def test_every_variable_is_read_and_given_on() -> None:
    sign_on = SignOn.from_environment(VARIABLES)
    assert sign_on == SignOn(
        issuer="https://login.example.org/realms/ml",
        client_id="mlops",
        client_secret="hidden",
        role_claim="roles",
        viewers=("staff", "data science"),
        operators=("ml engineers",),
        scopes="openid groups",
        session_hours=8,
    )
    assert "hidden" not in repr(sign_on)
    assert SignOn.from_environment(sign_on_variables(sign_on)) == sign_on
    assert SignOn.from_environment({}) is None is SignOn.from_environment(sign_on_variables(None))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"MLOPS_OIDC_ISSUER": "http://login.example.org"}, "MLOPS_OIDC_ISSUER"),
        ({"MLOPS_OIDC_ISSUER": "login.example.org"}, "MLOPS_OIDC_ISSUER"),
        ({"MLOPS_OIDC_CLIENT_ID": ""}, "MLOPS_OIDC_CLIENT_ID"),
        ({"MLOPS_OIDC_VIEWERS": "", "MLOPS_OIDC_OPERATORS": " , "}, "Nobody could sign in"),
        ({"MLOPS_OIDC_SESSION_HOURS": "long"}, "MLOPS_OIDC_SESSION_HOURS"),
    ],
)
def test_what_cannot_be_used_names_the_variable(changed: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SignOn.from_environment({**VARIABLES, **changed})
