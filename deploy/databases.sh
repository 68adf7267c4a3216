# Run by the postgres image when its volume is empty: a role and a database for each service, and nothing of the others'.
# Sourced by the image's entrypoint, so it needs no permission to execute.
for service in orders payments shipping; do
    psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set role="$service" --set name="tradewind_$service" --set password="$TRADEWIND_DB_PASSWORD" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"role";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
