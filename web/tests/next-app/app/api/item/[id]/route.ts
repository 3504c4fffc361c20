export const POST = () => Response.json({ taken: true });

export const GET = () => Response.json({ error: 'sold out' }, { status: 503 });
