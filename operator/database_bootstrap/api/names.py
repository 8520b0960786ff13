"""Group, kinds, and every key that this operator writes into a cluster or reads from one."""

GROUP = "dbbootstrap.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DatabaseBootstrap"
LIST_KIND = f"{KIND}List"
SINGULAR = "databasebootstrap"
PLURAL = "databasebootstraps"
SHORT_NAME = "dbb"
CATEGORY = "dbbootstrap"
CRD_NAME = f"{PLURAL}.{GROUP}"
SERVER_KIND = "DatabaseServer"
SERVER_LIST_KIND = f"{SERVER_KIND}List"
SERVER_SINGULAR = "databaseserver"
SERVER_PLURAL = "databaseservers"
SERVER_SHORT_NAME = "dbs"
SERVER_CRD_NAME = f"{SERVER_PLURAL}.{GROUP}"

OPERATOR = "database-bootstrap-operator"
FIELD_MANAGER = OPERATOR
"""The one owner of all that is applied: the status and the Secrets."""

FINALIZER = f"{GROUP}/deletion"
"""On resources whose `deletionPolicy` is Delete, and on no others: what they have made goes before they do."""

LABEL_WATCH = f"{GROUP}/watch"
"""A ConfigMap with this label at "true" acts at once when it changes."""
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_PROVISIONED_SERVICE = "servicebinding.io/provisioned-service"
"""On the CRD: the kind is a provisioned service of the Service Binding specification."""

ANNOTATION_UID = f"{GROUP}/uid"
"""On our Secrets: the uid of the resource that made them. A Secret without it is foreign, and stays as it is."""
ANNOTATION_RECONCILE_REQUESTED_AT = f"{GROUP}/reconcile-requested-at"
"""On the resource: any new value asks for a visit now; the status acknowledges it in `lastHandledReconcileAt`."""
ANNOTATION_RESOLVE = f"{GROUP}/resolve"
"""On the resource: `<migration>=applied@<stop>` or `=rolled-back@<stop>`, a person's word on one that stopped."""
ANNOTATION_ROTATE_PASSWORD = f"{GROUP}/rotate-password"
"""On the resource: a new value asks for a new generated password."""
ANNOTATION_ROTATED = f"{GROUP}/rotated"
"""On the Secret of a generated password: the value of `rotate-password` that was last acted upon."""
ANNOTATION_ACKNOWLEDGE_DATA_LOSS = f"{GROUP}/acknowledge-data-loss"
"""On the resource: the incarnation whose loss a person knows of; everything is then made anew."""
ANNOTATION_ACCEPT_INCARNATION = f"{GROUP}/accept-incarnation"
"""On the resource: the incarnation that a person wants to go on with in place of the pinned one."""
ANNOTATION_TAKE_OVER = f"{GROUP}/take-over"
"""On the resource: the uid of the resource whose role and database a person wants to be this one's."""
ANNOTATION_RESOURCE = f"{GROUP}/resource"
"""On our Secrets: the name of the resource that made them, which is the same when it is made again."""
ANNOTATION_BUNDLE = f"{GROUP}/bundle"
"""On ConfigMaps that `bundle` writes: of which bundle each is, its number, and the digest of all of them together."""
ANNOTATION_INCARNATION = f"{GROUP}/incarnation"
"""On the connection Secret: the incarnation of the database, pinned after the first complete success."""

CONNECTION_SECRET_TYPE = "servicebinding.io/postgresql"  # noqa: S105 a type, not a secret
PASSWORD_SECRET_TYPE = "kubernetes.io/basic-auth"  # noqa: S105
CONNECTION_SECRET_SUFFIX = "-db"  # noqa: S105
PASSWORD_SECRET_SUFFIX = "-role"  # noqa: S105
