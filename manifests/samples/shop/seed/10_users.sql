-- Written to be repeatable, although the operator runs it once only.
INSERT INTO users (email, name) VALUES
    ('anna@example.com', 'Anna'),
    ('ben@example.com', 'Ben'),
    ('carla@example.com', 'Carla')
ON CONFLICT (email) DO NOTHING;
