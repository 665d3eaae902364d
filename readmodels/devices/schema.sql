-- Telemetry: devices number their readings, and send them. A reading without a temperature has an error instead.
CREATE TABLE public.devices (id integer PRIMARY KEY, name text NOT NULL, site text NOT NULL);
CREATE TABLE public.readings (
    device_id integer REFERENCES public.devices, number bigint, taken_at timestamptz NOT NULL,
    temperature numeric(6, 2), error text, PRIMARY KEY (device_id, number));
-- For one hour of a device, and for ranges of hours. The primary key is the index for the buckets of a device.
CREATE INDEX ON public.readings (device_id, taken_at);
-- With the old row, a change event names the hour in which a reading was before it was changed or deleted.
ALTER TABLE public.readings REPLICA IDENTITY FULL;
