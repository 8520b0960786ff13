INSERT INTO products (sku, name, price_cents) VALUES
    ('KB-100', 'Mechanical keyboard', 8900),
    ('MS-200', 'Wireless mouse', 3900),
    ('DP-300', '27 inch display', 24900),
    ('HS-400', 'Headset', 6900),
    ('LP-500', 'Laptop stand', 4500)
ON CONFLICT (sku) DO UPDATE SET name = EXCLUDED.name, price_cents = EXCLUDED.price_cents;
