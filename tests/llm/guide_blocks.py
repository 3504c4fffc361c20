# The guide's sections 1.1 (its chat endpoint) and 5.1 (its cost tracker's use), with only the imports changed.
# ruff: noqa
# mypy: ignore-errors
# --- block_1_1 ---
from relay_otel import api_cost_usd_total, chat_messages_total, llm_tokens_total
from relay_otel.llm import calculate_cost, hash_user_id


# Example: Chat endpoint with metrics
@app.post("/api/chat")
async def chat_endpoint(request: ChatRequest):
    model = request.model  # e.g., "claude-3.5-sonnet"

    try:
        # Call LLM
        response = await llm.create_message(
            model=model,
            messages=request.messages
        )

        # Track tokens
        input_tokens = response.usage.input_tokens
        output_tokens = response.usage.output_tokens

        llm_tokens_total.labels(
            model=model,
            token_type='input',
            operation='chat'
        ).inc(input_tokens)

        llm_tokens_total.labels(
            model=model,
            token_type='output',
            operation='chat'
        ).inc(output_tokens)

        # Track cost
        cost = calculate_cost(model, input_tokens, output_tokens)
        api_cost_usd_total.labels(
            operation='chat',
            model=model
        ).inc(cost)

        # Track message
        chat_messages_total.labels(
            model=model,
            status='success',
            user_id_hash=hash_user_id(request.user_id)
        ).inc()

        return response

    except Exception as e:
        chat_messages_total.labels(
            model=model,
            status='error',
            user_id_hash=hash_user_id(request.user_id)
        ).inc()
        raise


# --- block_5_1 ---
from datetime import datetime

from relay_otel.llm import CostEvent, hash_user_id, log_cost_event


# Example usage in chat endpoint
@app.post("/api/chat")
async def chat_endpoint(request: ChatRequest):
    response = await llm.create_message(
        model=request.model,
        messages=request.messages
    )

    # Calculate cost
    model_costs = {
        'claude-3.5-sonnet': {'input': 0.003, 'output': 0.015},
        'gpt-4': {'input': 0.03, 'output': 0.06}
    }

    costs = model_costs.get(request.model, {})
    input_cost = response.usage.input_tokens * costs.get('input', 0) / 1000
    output_cost = response.usage.output_tokens * costs.get('output', 0) / 1000
    total_cost = input_cost + output_cost

    # Log cost event
    await log_cost_event(CostEvent(
        timestamp=datetime.utcnow(),
        user_id_hash=hash_user_id(request.user_id),
        operation='chat',
        model=request.model,
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
        cost_usd=total_cost
    ))

    return response
