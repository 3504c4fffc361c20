"""What people who operate the product do: say that something is deployed or maintained, look at alerts and budgets."""

from relay_otel.operations.flags import (
    FlagNotTaken,
    FlagRefused,
    deploy_end,
    deploy_start,
    maintenance_end,
    maintenance_start,
)

__all__ = ["FlagNotTaken", "FlagRefused", "deploy_end", "deploy_start", "maintenance_end", "maintenance_start"]
